// A reflector over AF_XDP as small as can be, to hold holdline's pump against, and what sends it frames.
//
//     reflector bounce IFACE                 sends back all that IFACE receives, in the kernel, until its input ends
//     reflector reflect IFACE SECONDS FRAMES sends back what IFACE receives, addresses swapped, in user memory, after
//                                            it has let FRAMES frames go; prints how many it reflected in a second
//     reflector probe IFACE SECONDS FRAMES MS
//                                            lets FRAMES frames go every MS milliseconds and takes what comes back;
//                                            prints how many came back in a second
//     reflector ask HOST                     sends HOST datagrams from a socket of the kernel, 128 of them under way,
//                                            which that reflects; until it is killed
//
// One queue, copy mode where the driver has nothing better, need-wakeup, frames sent from where they were received. It
// checks what system calls say and nothing else.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <linux/if_xdp.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define FRAMES 4096
#define RING 4096
#define BATCH 64

static long must(long answer, const char *what)
{
    if (answer < 0) {
        perror(what);
        exit(1);
    }
    return answer;
}

static long bpf(int command, union bpf_attr *attributes)
{
    return syscall(SYS_bpf, command, attributes, sizeof(*attributes));
}

static int attach(int index, const struct bpf_insn *instructions, int count)
{
    union bpf_attr load = { .prog_type = BPF_PROG_TYPE_XDP,
                            .insns = (uint64_t)instructions,
                            .insn_cnt = count,
                            .license = (uint64_t) "GPL",
                            .expected_attach_type = BPF_XDP };
    union bpf_attr link = { .link_create = { .target_ifindex = index, .attach_type = BPF_XDP,
                                             .flags = XDP_FLAGS_DRV_MODE } };
    link.link_create.prog_fd = must(bpf(BPF_PROG_LOAD, &load), "load");
    return must(bpf(BPF_LINK_CREATE, &link), "attach");
}

struct ring {
    uint32_t *producer, *consumer, *flags, mine, size;
    void *entries;
};

static struct ring map(int socket, const struct xdp_ring_offset *at, uint64_t offset, size_t entry_bytes)
{
    char *base = mmap(NULL, at->desc + RING * entry_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, socket,
                      offset);
    must(base == MAP_FAILED ? -1 : 0, "map a ring");
    return (struct ring){ (uint32_t *)(base + at->producer), (uint32_t *)(base + at->consumer),
                          (uint32_t *)(base + at->flags), 0, RING, base + at->desc };
}

static void swap(uint8_t *left, uint8_t *right, size_t bytes)
{
    uint8_t kept[16];
    memcpy(kept, left, bytes);
    memcpy(left, right, bytes);
    memcpy(right, kept, bytes);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

// With a pause, frames that have left wait until it is over, and what comes back goes no further.
static void reflect(const char *name, int index, double seconds, int seeds, double pause)
{
    int socket_ = must(socket(AF_XDP, SOCK_RAW, 0), "socket"), size = RING, large = 4 << 20;
    uint8_t *memory = mmap(NULL, FRAMES * 2048, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
                           -1, 0);
    struct xdp_umem_reg area = { .addr = (uint64_t)memory, .len = FRAMES * 2048, .chunk_size = 2048 };
    must(setsockopt(socket_, SOL_XDP, XDP_UMEM_REG, &area, sizeof(area)), "register");
    const int rings[] = { XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_RX_RING, XDP_TX_RING };
    for (int i = 0; i < 4; i++)
        must(setsockopt(socket_, SOL_XDP, rings[i], &size, sizeof(size)), "ring");
    must(setsockopt(socket_, SOL_SOCKET, SO_SNDBUFFORCE, &large, sizeof(large)), "send buffer");
    struct xdp_mmap_offsets at;
    socklen_t bytes = sizeof(at);
    must(getsockopt(socket_, SOL_XDP, XDP_MMAP_OFFSETS, &at, &bytes), "offsets");
    struct ring fill = map(socket_, &at.fr, XDP_UMEM_PGOFF_FILL_RING, 8);
    struct ring done = map(socket_, &at.cr, XDP_UMEM_PGOFF_COMPLETION_RING, 8);
    struct ring in = map(socket_, &at.rx, XDP_PGOFF_RX_RING, sizeof(struct xdp_desc));
    struct ring out = map(socket_, &at.tx, XDP_PGOFF_TX_RING, sizeof(struct xdp_desc));
    struct sockaddr_xdp to = { .sxdp_family = AF_XDP, .sxdp_ifindex = index, .sxdp_flags = XDP_USE_NEED_WAKEUP };
    for (int tries = 0; bind(socket_, (struct sockaddr *)&to, sizeof(to)) < 0; tries++) {
        must(tries < 10000 ? 0 : -1, "bind");
        usleep(1000);
    }

    union bpf_attr map_ = { .map_type = BPF_MAP_TYPE_XSKMAP, .key_size = 4, .value_size = 4, .max_entries = 1 };
    int sockets = must(bpf(BPF_MAP_CREATE, &map_), "map"), zero = 0;
    union bpf_attr put = { .map_fd = sockets, .key = (uint64_t)&zero, .value = (uint64_t)&socket_ };
    must(bpf(BPF_MAP_UPDATE_ELEM, &put), "put the socket");
    const struct bpf_insn redirect[] = {
        { .code = BPF_LDX | BPF_W | BPF_MEM, .dst_reg = 2, .src_reg = 1, .off = 16 },
        { .code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = 1, .src_reg = BPF_PSEUDO_MAP_FD, .imm = sockets },
        { 0 },
        { .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 3, .imm = XDP_PASS },
        { .code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_redirect_map },
        { .code = BPF_JMP | BPF_EXIT },
    };
    attach(index, redirect, 6);

    uint64_t waiting[FRAMES];
    int waits = 0;
    // The frames that are let go first; the others are to be received into.
    struct ifreq request = { 0 };
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    must(ioctl(socket(AF_INET, SOCK_DGRAM, 0), SIOCGIFHWADDR, &request), "address");
    for (uint32_t i = 0; i < FRAMES; i++) {
        if ((int)i >= seeds) {
            ((uint64_t *)fill.entries)[fill.mine++ % RING] = i * 2048;
            continue;
        }
        uint8_t *frame = memory + i * 2048;
        memset(frame, 0xff, 6);
        memcpy(frame + 6, request.ifr_hwaddr.sa_data, 6);
        memcpy(frame + 12, "\x08\x00\x45\x00\x00\x2e\0\0\0\0\x40\xfd\0\0\x0a\x51\0\x01\x0a\x51\0\x02", 22);
        if (pause > 0)
            waiting[waits++] = i * 2048;
        else
            ((struct xdp_desc *)out.entries)[out.mine++ % RING] = (struct xdp_desc){ i * 2048, 60, 0 };
    }
    __atomic_store_n(fill.producer, fill.mine, __ATOMIC_RELEASE);

    uint64_t reflected = 0;
    const double begun = now();
    double ended, due = begun + pause;
    while ((ended = now()) - begun < seconds) {
        const uint32_t finished = __atomic_load_n(done.producer, __ATOMIC_ACQUIRE);
        while (done.mine != finished) {
            const uint64_t left = ((uint64_t *)done.entries)[done.mine++ % RING];
            if (pause > 0)
                waiting[waits++] = left;
            else
                ((uint64_t *)fill.entries)[fill.mine++ % RING] = left;
        }
        if (pause > 0 && ended >= due) {
            due += pause;
            while (waits > 0)
                ((struct xdp_desc *)out.entries)[out.mine++ % RING] = (struct xdp_desc){ waiting[--waits], 60, 0 };
        }
        __atomic_store_n(done.consumer, done.mine, __ATOMIC_RELEASE);
        __atomic_store_n(fill.producer, fill.mine, __ATOMIC_RELEASE);
        uint32_t count = __atomic_load_n(in.producer, __ATOMIC_ACQUIRE) - in.mine;
        if (count > BATCH)
            count = BATCH;
        for (uint32_t i = 0; i < count; i++) {
            const struct xdp_desc frame = ((struct xdp_desc *)in.entries)[in.mine++ % RING];
            if (pause > 0) {
                ((uint64_t *)fill.entries)[fill.mine++ % RING] = frame.addr;
                continue;
            }
            swap(memory + frame.addr, memory + frame.addr + 6, 6);
            swap(memory + frame.addr + 26, memory + frame.addr + 30, 4);
            ((struct xdp_desc *)out.entries)[out.mine++ % RING] = frame;
        }
        __atomic_store_n(fill.producer, fill.mine, __ATOMIC_RELEASE);
        __atomic_store_n(in.consumer, in.mine, __ATOMIC_RELEASE);
        __atomic_store_n(out.producer, out.mine, __ATOMIC_SEQ_CST);
        reflected += count;
        if (__atomic_load_n(out.consumer, __ATOMIC_ACQUIRE) != out.mine)
            while (sendto(socket_, NULL, 0, MSG_DONTWAIT, NULL, 0) < 0 &&
                   __atomic_load_n(out.consumer, __ATOMIC_ACQUIRE) != out.mine)
                ;
        else if (count == 0) {
            const double patience = pause > 0 ? due - now() : 0.01;
            const long ns = patience > 0 ? patience * 1e9 : 0;
            ppoll(&(struct pollfd){ .fd = socket_, .events = POLLIN }, 1, &(struct timespec){ 0, ns }, NULL);
        }
    }
    printf("%.0f\n", reflected / (ended - begun));
}

// Both ends have the same port, as the reflector swaps no ports.
static void ask(const char *host)
{
    static char bytes[64], answers[BATCH][64];
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(7001) }, here = to;
    inet_pton(AF_INET, host, &to.sin_addr);
    int socket_ = must(socket(AF_INET, SOCK_DGRAM, 0), "socket"), room = 4 << 20;
    must(setsockopt(socket_, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)), "receive buffer");
    struct timeval patience = { .tv_usec = 20000 };
    must(setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), "patience");
    must(bind(socket_, (void *)&here, sizeof(here)), "bind");
    must(connect(socket_, (void *)&to, sizeof(to)), "connect");
    struct iovec out = { bytes, 40 }, in[BATCH];
    struct mmsghdr asked[2 * BATCH] = { 0 }, answered[BATCH] = { 0 };
    for (int i = 0; i < 2 * BATCH; i++)
        asked[i].msg_hdr = (struct msghdr){ .msg_iov = &out, .msg_iovlen = 1 };
    for (int i = 0; i < BATCH; i++) {
        in[i] = (struct iovec){ answers[i], sizeof(answers[i]) };
        answered[i].msg_hdr = (struct msghdr){ .msg_iov = &in[i], .msg_iovlen = 1 };
    }
    for (int next = 2 * BATCH;;) {
        sendmmsg(socket_, asked, next, 0);
        next = recvmmsg(socket_, answered, BATCH, MSG_WAITFORONE, NULL);
        // Nothing comes: all of them are lost, as before the reflector is there.
        if (next <= 0)
            next = 2 * BATCH;
    }
}

int main(int count, char **arguments)
{
    const int index = count > 2 ? if_nametoindex(arguments[2]) : 0;
    if (count == 3 && !strcmp(arguments[1], "ask"))
        ask(arguments[2]);
    if (index && count == 3 && !strcmp(arguments[1], "bounce")) {
        const struct bpf_insn back[] = { { .code = BPF_ALU64 | BPF_MOV | BPF_K, .imm = XDP_TX },
                                         { .code = BPF_JMP | BPF_EXIT } };
        attach(index, back, 2);
        puts("ready");
        fflush(stdout);
        while (getchar() != EOF)
            ;
    } else if (index && count == 5 && !strcmp(arguments[1], "reflect")) {
        reflect(arguments[2], index, atof(arguments[3]), atoi(arguments[4]), 0);
    } else if (index && count == 6 && !strcmp(arguments[1], "probe")) {
        reflect(arguments[2], index, atof(arguments[3]), atoi(arguments[4]), atof(arguments[5]) / 1e3);
    } else {
        fprintf(stderr, "see the head of bench/bare/reflector.c\n");
        return 2;
    }
}
