// The steering program: which frames of an interface are holdline's.
//
// Comes in: every frame that the interface receives, before the kernel's own stack sees it. Goes out: ours to the
// AF_XDP socket of the queue that it came by, all others to the kernel as they are. A frame of ours whose queue has no
// socket, as while the process is being restarted, is dropped: the kernel knows nothing of our connections and would
// end them with a RST.
//
// Ours is, of an address of our own: every packet to it, ARP for it, and neighbour solicitations for it. Of an address
// that the kernel keeps: TCP to our ports, the fragments of such packets, and ICMP errors about what left from our
// ports; neighbours are the kernel's affair there. Tagged frames are another network's.
//
// The maps are laid out here and in src/link/af_xdp/program.rs.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// An address of either family; IPv4 is mapped, ::ffff:a.b.c.d.
struct address {
    __u32 words[4];
};

// How an address is held.
enum holding { OWN = 1, PORTS = 2 };

// What became of a frame. NO_SOCKET counts beside what the frame was taken for.
enum verdict { PASSED, ADDRESS, ARP, NEIGHBOR, PORT, FRAGMENT, ICMP_ERROR, NO_SOCKET, VERDICTS };

// Our Ethernet address, as it lies in a frame. The rest is for the next process that takes the program up: which
// interface it is attached to, in which network namespace, and whether by the driver or generically.
struct settings {
    __u16 mac[3];
    __u16 mode;
    __u32 interface;
    __u32 namespace;
};

// What all fragments of a packet have in common.
struct packet_name {
    struct address source;
    struct address destination;
    __u32 id;
};

struct {
    __uint(type, BPF_MAP_TYPE_XSKMAP);
    __uint(max_entries, 1024);
    __type(key, __u32);
    __type(value, __u32);
} sockets SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1024);
    __type(key, struct address);
    __type(value, __u32);
} addresses SEC(".maps");

// A bit for each port.
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1024);
    __type(key, __u32);
    __type(value, __u64);
} ports SEC(".maps");

// Packets whose first fragment went to one of our ports. A fragment that overtakes the first is the kernel's, and the
// packet is sent again.
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 4096);
    __type(key, struct packet_name);
    __type(value, __u8);
} fragments SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct settings);
} settings SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, VERDICTS);
    __type(key, __u32);
    __type(value, __u64);
} verdicts SEC(".maps");

// Headers as they lie in a frame, without bit fields and without a demand on alignment.
struct arp {
    __be16 hardware, protocol;
    __u8 hardware_bytes, protocol_bytes;
    __be16 operation;
    __u8 sender_mac[ETH_ALEN], sender[4], target_mac[ETH_ALEN], target[4];
} __attribute__((packed));

struct ipv4 {
    __u8 version_and_length, service;
    __be16 total_bytes, id, fragment;
    __u8 ttl, protocol;
    __be16 checksum;
    __u8 source[4], destination[4];
} __attribute__((packed));

struct ipv6 {
    __be32 version_and_flow;
    __be16 payload_bytes;
    __u8 next_header, hop_limit, source[16], destination[16];
} __attribute__((packed));

struct icmp {
    __u8 type, code;
    __be16 checksum;
    __be32 rest;
} __attribute__((packed));

struct tcp_ports {
    __be16 source, destination;
} __attribute__((packed));

// How each extension header of IPv6 begins; a fragment header is one whole.
struct extension {
    __u8 next_header, eights;
    __be16 fragment;
    __be32 id;
} __attribute__((packed));

// Where a segment begins, as far as its packet tells.
struct inside {
    void *at;
    __u8 protocol;
    // It is a fragment, and not the first.
    __u8 is_later;
    // More fragments follow.
    __u8 is_first;
    __u32 id;
};

#define FRAGMENT_OFFSET 0x1fff
#define MORE_FRAGMENTS 0x2000
#define EXTENSIONS_MAX 6

static __always_inline struct address of_ipv4(const __u8 bytes[4])
{
    struct address address = { .words = { 0, 0, bpf_htonl(0xffff), 0 } };
    __builtin_memcpy(&address.words[3], bytes, 4);
    return address;
}

static __always_inline struct address of_ipv6(const __u8 bytes[16])
{
    struct address address;
    __builtin_memcpy(&address, bytes, 16);
    return address;
}

// How we hold an address; 0: it is not ours.
static __always_inline __u32 holding_of(const struct address *address)
{
    const __u32 *holding = bpf_map_lookup_elem(&addresses, address);
    return holding ? *holding : 0;
}

static __always_inline int is_our_port(__be16 port)
{
    const __u32 number = bpf_ntohs(port), index = number / 64;
    const __u64 *bits = bpf_map_lookup_elem(&ports, &index);
    return bits && (*bits >> (number % 64) & 1);
}

// What lies in an IPv4 packet; false: it is cut, or no header.
static __always_inline int open_ipv4(const struct ipv4 *ip, const void *end, struct inside *inside)
{
    const __u32 bytes = (ip->version_and_length & 15) * 4;
    const __u16 fragment = bpf_ntohs(ip->fragment);
    if (ip->version_and_length >> 4 != 4 || bytes < sizeof(*ip))
        return 0;
    inside->at = (void *)ip + bytes;
    inside->protocol = ip->protocol;
    inside->is_later = (fragment & FRAGMENT_OFFSET) != 0;
    inside->is_first = !inside->is_later && (fragment & MORE_FRAGMENTS);
    inside->id = ip->id;
    return 1;
}

// What lies behind the extension headers of an IPv6 packet; false: it is cut, or there are too many.
static __always_inline int open_ipv6(const struct ipv6 *ip, const void *end, struct inside *inside)
{
    void *at = (void *)(ip + 1);
    __u8 next = ip->next_header;
    inside->is_later = inside->is_first = 0;
    inside->id = 0;
    for (int count = 0; count < EXTENSIONS_MAX; count++) {
        const struct extension *extension = at;
        if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS && next != IPPROTO_FRAGMENT) {
            inside->at = at;
            inside->protocol = next;
            return 1;
        }
        if ((void *)(extension + 1) > end)
            return 0;
        if (next == IPPROTO_FRAGMENT) {
            const __u16 fragment = bpf_ntohs(extension->fragment);
            inside->is_later = fragment >> 3 != 0;
            inside->is_first = !inside->is_later && (fragment & 1);
            inside->id = extension->id;
            at += sizeof(*extension);
            // What stands behind it is not a header in a later fragment.
            if (inside->is_later) {
                inside->at = at;
                inside->protocol = IPPROTO_TCP;
                return 1;
            }
        } else {
            at += 8 + extension->eights * 8;
        }
        next = extension->next_header;
    }
    return 0;
}

// A packet to an address that the kernel keeps, when it is opened.
static __always_inline enum verdict judge_tcp(const struct inside *inside, const void *end,
                                              const struct address *source, const struct address *destination)
{
    const struct tcp_ports *tcp = inside->at;
    struct packet_name name = { .source = *source, .destination = *destination, .id = inside->id };
    const __u8 yes = 1;
    if (inside->is_later)
        return bpf_map_lookup_elem(&fragments, &name) ? FRAGMENT : PASSED;
    if ((void *)(tcp + 1) > end || !is_our_port(tcp->destination))
        return PASSED;
    if (!inside->is_first)
        return PORT;
    bpf_map_update_elem(&fragments, &name, &yes, BPF_ANY);
    return FRAGMENT;
}

// Whether a packet that an ICMP error quotes left from one of our ports.
static __always_inline int is_from_our_port(const struct inside *quoted, const void *end)
{
    const struct tcp_ports *tcp = quoted->at;
    return quoted->protocol == IPPROTO_TCP && !quoted->is_later && (void *)(tcp + 1) <= end &&
           is_our_port(tcp->source);
}

// Destination unreachable, time exceeded, a bad parameter. A redirect is about routes, which are the kernel's.
static __always_inline enum verdict judge_icmp(const struct icmp *icmp, const void *end)
{
    const struct ipv4 *ip = (void *)(icmp + 1);
    struct inside quoted = {};
    if ((void *)(ip + 1) > end || (icmp->type != 3 && icmp->type != 11 && icmp->type != 12))
        return PASSED;
    const struct address source = of_ipv4(ip->source);
    const int is_ours = holding_of(&source) == PORTS && open_ipv4(ip, end, &quoted) && is_from_our_port(&quoted, end);
    return is_ours ? ICMP_ERROR : PASSED;
}

static __always_inline enum verdict judge_icmpv6(const struct icmp *icmp, const void *end)
{
    const struct ipv6 *ip = (void *)(icmp + 1);
    struct inside quoted = {};
    if ((void *)(ip + 1) > end || icmp->type < 1 || icmp->type > 4)
        return PASSED;
    const struct address source = of_ipv6(ip->source);
    const int is_ours = holding_of(&source) == PORTS && open_ipv6(ip, end, &quoted) && is_from_our_port(&quoted, end);
    return is_ours ? ICMP_ERROR : PASSED;
}

static __always_inline enum verdict judge_ipv4(const struct ipv4 *ip, const void *end)
{
    struct inside inside = {};
    if ((void *)(ip + 1) > end)
        return PASSED;
    const struct address source = of_ipv4(ip->source), destination = of_ipv4(ip->destination);
    const __u32 holding = holding_of(&destination);
    if (holding == OWN)
        return ADDRESS;
    if (holding != PORTS || !open_ipv4(ip, end, &inside))
        return PASSED;
    if (inside.protocol == IPPROTO_TCP)
        return judge_tcp(&inside, end, &source, &destination);
    if (inside.protocol == IPPROTO_ICMP && !inside.is_later && inside.at + sizeof(struct icmp) <= end)
        return judge_icmp(inside.at, end);
    return PASSED;
}

static __always_inline enum verdict judge_ipv6(const struct ipv6 *ip, const void *end)
{
    struct inside inside = {};
    if ((void *)(ip + 1) > end)
        return PASSED;
    const struct address source = of_ipv6(ip->source), destination = of_ipv6(ip->destination);
    const __u32 holding = holding_of(&destination);
    if (holding == OWN)
        return ADDRESS;
    if (holding != PORTS) {
        // A solicitation goes to a group; its target stands behind the ICMPv6 header.
        const struct icmp *icmp = (void *)(ip + 1);
        const __u8 *target = (void *)(icmp + 1);
        if (ip->destination[0] != 0xff || ip->next_header != IPPROTO_ICMPV6 || (void *)(target + 16) > end ||
            icmp->type != 135)
            return PASSED;
        const struct address asked = of_ipv6(target);
        return holding_of(&asked) == OWN ? NEIGHBOR : PASSED;
    }
    if (!open_ipv6(ip, end, &inside))
        return PASSED;
    if (inside.protocol == IPPROTO_TCP)
        return judge_tcp(&inside, end, &source, &destination);
    if (inside.protocol == IPPROTO_ICMPV6 && inside.at + sizeof(struct icmp) <= end)
        return judge_icmpv6(inside.at, end);
    return PASSED;
}

static __always_inline enum verdict judge_arp(const struct arp *arp, const void *end)
{
    if ((void *)(arp + 1) > end || arp->hardware != bpf_htons(1) || arp->protocol != bpf_htons(ETH_P_IP) ||
        arp->hardware_bytes != ETH_ALEN || arp->protocol_bytes != 4)
        return PASSED;
    const struct address target = of_ipv4(arp->target);
    return holding_of(&target) == OWN ? ARP : PASSED;
}

static __always_inline enum verdict judge(const struct ethhdr *ethernet, const void *end)
{
    const __u32 zero = 0;
    const struct settings *ours = bpf_map_lookup_elem(&settings, &zero);
    if ((void *)(ethernet + 1) > end || !ours)
        return PASSED;
    // What a promiscuous interface sees of others' is not ours, whatever address it is for.
    const __u16 *mac = (void *)ethernet->h_dest;
    const int is_for_us = mac[0] == ours->mac[0] && mac[1] == ours->mac[1] && mac[2] == ours->mac[2];
    if (!(ethernet->h_dest[0] & 1) && !is_for_us)
        return PASSED;
    switch (ethernet->h_proto) {
    case bpf_htons(ETH_P_IP):
        return judge_ipv4((void *)(ethernet + 1), end);
    case bpf_htons(ETH_P_IPV6):
        return judge_ipv6((void *)(ethernet + 1), end);
    case bpf_htons(ETH_P_ARP):
        return judge_arp((void *)(ethernet + 1), end);
    default:
        return PASSED;
    }
}

static __always_inline void count(__u32 verdict)
{
    __u64 *counter = bpf_map_lookup_elem(&verdicts, &verdict);
    if (counter)
        *counter += 1;
}

SEC("xdp")
int steer(struct xdp_md *context)
{
    const enum verdict verdict = judge((void *)(long)context->data, (void *)(long)context->data_end);
    count(verdict);
    if (verdict == PASSED)
        return XDP_PASS;
    const int action = bpf_redirect_map(&sockets, context->rx_queue_index, XDP_DROP);
    if (action != XDP_REDIRECT)
        count(NO_SOCKET);
    return action;
}

const char holdline_license[] SEC("license") = "Dual MIT/GPL";
const char holdline_compiler[] SEC("compiler") = __VERSION__;
