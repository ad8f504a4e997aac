/* A server on Debian's liblwip for bench/peers.rs: it accepts on port 7000 and sends 64 bytes to whom it is told to.
 *
 * Standard input has commands of 32-bit numbers in the machine's order: 0, a count, and that many frames, each its
 * length and its bytes; or 1, a count, and that many connections by the order in which they came. Each is answered on
 * standard output by the nanoseconds that lwIP took (64 bits), the count of frames that it sent, and these. Its raw
 * API is called with the lock held, in this thread and none else.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lwip/etharp.h"
#include "lwip/netif.h"
#include "lwip/pbuf.h"
#include "lwip/tcp.h"
#include "lwip/tcpip.h"
#include "netif/ethernet.h"

#define CONNECTIONS_MAX 1000000
#define FRAME_MAX 2048
#define SENT_MAX (1 << 20)

static struct tcp_pcb *connections[CONNECTIONS_MAX];
static uint32_t opened;
static unsigned char sent[SENT_MAX];
static size_t sent_bytes;
static uint32_t sent_frames;

static void fail(const char *what)
{
    fprintf(stderr, "lwIP: %s\n", what);
    exit(1);
}

static uint32_t read_number(void)
{
    uint32_t number;
    if (fread(&number, sizeof number, 1, stdin) != 1)
        exit(0);
    return number;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static err_t send_frame(struct netif *netif, struct pbuf *frame)
{
    uint32_t length = frame->tot_len;
    (void)netif;
    if (sent_bytes + sizeof length + length > SENT_MAX)
        fail("more frames than are asked for");
    memcpy(sent + sent_bytes, &length, sizeof length);
    pbuf_copy_partial(frame, sent + sent_bytes + sizeof length, (u16_t)length, 0);
    sent_bytes += sizeof length + length;
    sent_frames++;
    return ERR_OK;
}

static err_t begin_interface(struct netif *netif)
{
    static const unsigned char mac[6] = {2, 0x68, 0x6f, 0x6c, 0x64, 1};
    netif->name[0] = 'b';
    netif->name[1] = 'e';
    netif->mtu = 1500;
    netif->hwaddr_len = sizeof mac;
    memcpy(netif->hwaddr, mac, sizeof mac);
    netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET | NETIF_FLAG_LINK_UP;
    netif->output = etharp_output;
    netif->linkoutput = send_frame;
    return ERR_OK;
}

static err_t on_received(void *argument, struct tcp_pcb *connection, struct pbuf *bytes, err_t error)
{
    (void)argument;
    (void)error;
    if (bytes != NULL) {
        tcp_recved(connection, bytes->tot_len);
        pbuf_free(bytes);
    }
    return ERR_OK;
}

static err_t on_accepted(void *argument, struct tcp_pcb *connection, err_t error)
{
    (void)argument;
    if (error != ERR_OK || opened == CONNECTIONS_MAX)
        return ERR_MEM;
    tcp_recv(connection, on_received);
    connections[opened++] = connection;
    return ERR_OK;
}

static void start(struct netif *netif)
{
    ip4_addr_t address, mask, none;
    struct tcp_pcb *listener;
    IP4_ADDR(&address, 10, 0, 0, 1);
    IP4_ADDR(&mask, 255, 0, 0, 0);
    IP4_ADDR(&none, 0, 0, 0, 0);
    if (netif_add(netif, &address, &mask, &none, NULL, begin_interface, ethernet_input) == NULL)
        fail("no interface");
    netif_set_default(netif);
    netif_set_up(netif);
    listener = tcp_new();
    if (listener == NULL || tcp_bind(listener, IP_ADDR_ANY, 7000) != ERR_OK)
        fail("no port");
    listener = tcp_listen_with_backlog(listener, 255);
    if (listener == NULL)
        fail("no listener");
    tcp_accept(listener, on_accepted);
}

static uint64_t receive(struct netif *netif, uint32_t count)
{
    static unsigned char bytes[FRAME_MAX];
    uint64_t spent = 0;
    while (count-- > 0) {
        uint32_t length = read_number();
        struct pbuf *frame;
        uint64_t began;
        if (length > FRAME_MAX || fread(bytes, 1, length, stdin) != length)
            fail("a frame that is too long");
        began = now_ns();
        frame = pbuf_alloc(PBUF_RAW, (u16_t)length, PBUF_RAM);
        if (frame == NULL || pbuf_take(frame, bytes, (u16_t)length) != ERR_OK)
            fail("no memory for a frame");
        if (netif->input(frame, netif) != ERR_OK)
            pbuf_free(frame);
        spent += now_ns() - began;
    }
    return spent;
}

static uint64_t push(uint32_t count)
{
    static unsigned char bytes[64];
    uint64_t spent = 0;
    memset(bytes, 0x5a, sizeof bytes);
    while (count-- > 0) {
        uint32_t which = read_number();
        uint64_t began = now_ns();
        if (which >= opened || tcp_write(connections[which], bytes, sizeof bytes, TCP_WRITE_FLAG_COPY) != ERR_OK)
            fail("a push is refused");
        tcp_output(connections[which]);
        spent += now_ns() - began;
    }
    return spent;
}

int main(void)
{
    static struct netif netif;
    tcpip_init(NULL, NULL);
    LOCK_TCPIP_CORE();
    start(&netif);
    for (;;) {
        uint32_t is_push = read_number(), count = read_number();
        uint64_t spent;
        sent_bytes = 0;
        sent_frames = 0;
        spent = is_push ? push(count) : receive(&netif, count);
        fwrite(&spent, sizeof spent, 1, stdout);
        fwrite(&sent_frames, sizeof sent_frames, 1, stdout);
        fwrite(sent, 1, sent_bytes, stdout);
        fflush(stdout);
    }
}
