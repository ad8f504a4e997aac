// An epoll server on kernel sockets, to hold holdline against, and a crowd of kernel-socket clients for both.
//
//     rival serve PORT               accepts and drops what it reads; each line on its input makes it send the same 64
//                                    bytes to every client once
//     rival crowd COUNT HOST PORT    connects COUNT clients, at most WINDOW at a time, and prints a line when all are;
//                                    then another whenever 64 more bytes have come for each of them. Resets them all
//                                    when its input ends
//
// One thread each. A process has 20,000 descriptors here, which bounds COUNT.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define WINDOW 256
#define BATCH 512
#define PUSH 64
#define CLIENTS_MAX 19900

static char buffer[1 << 16];

static long must(long answer, const char *what)
{
    if (answer < 0) {
        perror(what);
        exit(1);
    }
    return answer;
}

static void watch(int poller, int descriptor, uint32_t events, int operation)
{
    struct epoll_event event = { .events = events, .data.fd = descriptor };
    must(epoll_ctl(poller, operation, descriptor, &event), "epoll_ctl");
}

static void push_to_all(const int *clients, int count)
{
    static const char bytes[PUSH] = "the same to everybody";
    for (int i = 0; i < count; i++)
        if (send(clients[i], bytes, PUSH, MSG_DONTWAIT | MSG_NOSIGNAL) != PUSH)
            fprintf(stderr, "a push was not taken: %s\n", strerror(errno));
}

// Those that leave stay in the list: a crowd leaves at once, and the list begins anew with the next.
static void serve(int port)
{
    static int clients[CLIENTS_MAX];
    int count = 0, here = 0, one = 1, poller = must(epoll_create1(0), "epoll");
    int listener = must(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), "socket");
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    // What is accepted takes it over, so that it costs no call for each.
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    must(bind(listener, (void *)&address, sizeof(address)), "bind");
    must(listen(listener, 65535), "listen");
    watch(poller, listener, EPOLLIN, EPOLL_CTL_ADD);
    watch(poller, 0, EPOLLIN, EPOLL_CTL_ADD);
    for (;;) {
        struct epoll_event events[BATCH];
        int ready = epoll_wait(poller, events, BATCH, -1);
        for (int i = 0; i < ready; i++) {
            int descriptor = events[i].data.fd;
            if (descriptor == listener) {
                int client;
                while ((client = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    if (count == CLIENTS_MAX) {
                        close(client);
                        continue;
                    }
                    watch(poller, client, EPOLLIN | EPOLLRDHUP, EPOLL_CTL_ADD);
                    clients[count++] = client;
                    here++;
                }
            } else if (descriptor == 0) {
                if (must(read(0, buffer, sizeof(buffer)), "read") == 0)
                    return;
                push_to_all(clients, count);
            } else if (read(descriptor, buffer, sizeof(buffer)) <= 0) {
                close(descriptor);
                if (--here == 0)
                    count = 0;
            }
        }
    }
}

static void begin(int poller, const struct sockaddr_in *server)
{
    struct linger reset = { .l_onoff = 1 };
    int client = must(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), "socket");
    setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    if (connect(client, (const void *)server, sizeof(*server)) < 0 && errno != EINPROGRESS)
        must(-1, "connect");
    watch(poller, client, EPOLLOUT, EPOLL_CTL_ADD);
}

static void crowd(int count, const char *host, int port)
{
    struct sockaddr_in server = { .sin_family = AF_INET, .sin_port = htons(port) };
    inet_pton(AF_INET, host, &server.sin_addr);
    int poller = must(epoll_create1(0), "epoll"), begun = 0, connected = 0;
    long bytes = 0, told = 0;
    while (begun < count && begun < WINDOW)
        begin(poller, &server), begun++;
    watch(poller, 0, EPOLLIN, EPOLL_CTL_ADD);
    for (;;) {
        struct epoll_event events[BATCH];
        int ready = epoll_wait(poller, events, BATCH, -1);
        for (int i = 0; i < ready; i++) {
            int client = events[i].data.fd;
            if (client == 0)
                return;
            if (events[i].events & (EPOLLERR | EPOLLHUP)) {
                fprintf(stderr, "a client was refused or reset\n");
                exit(1);
            }
            if (events[i].events & EPOLLOUT) {
                watch(poller, client, EPOLLIN, EPOLL_CTL_MOD);
                if (++connected == count)
                    puts("connected");
                if (begun < count)
                    begin(poller, &server), begun++;
            } else {
                bytes += must(read(client, buffer, sizeof(buffer)), "read");
            }
        }
        for (; bytes - told >= (long)count * PUSH; told += (long)count * PUSH)
            puts("received");
        fflush(stdout);
    }
}

int main(int count, char **arguments)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (count == 3 && !strcmp(arguments[1], "serve"))
        serve(atoi(arguments[2]));
    else if (count == 5 && !strcmp(arguments[1], "crowd") && atoi(arguments[2]) <= CLIENTS_MAX)
        crowd(atoi(arguments[2]), arguments[3], atoi(arguments[4]));
    else
        return fprintf(stderr, "rival serve PORT | rival crowd COUNT HOST PORT\n"), 2;
    return 0;
}
