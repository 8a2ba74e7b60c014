#include "dist/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/progress.h"

/* The addresses by which other machines may reach this one. */
static void own_addresses(SocketAddress *where)
{
    struct ifaddrs *all = NULL;
    int n = 0;
    if (getifaddrs(&all) != 0)
        return;
    for (struct ifaddrs *a = all; a && n < 4; a = a->ifa_next) {
        if (!a->ifa_addr || a->ifa_addr->sa_family != AF_INET || a->ifa_flags & IFF_LOOPBACK || !(a->ifa_flags & IFF_UP))
            continue;
        if (getnameinfo(a->ifa_addr, sizeof(struct sockaddr_in), where->addresses[n], sizeof where->addresses[n], NULL, 0, NI_NUMERICHOST) == 0)
            n++;
    }
    freeifaddrs(all);
}

static void tune(int s)
{
    int on = 1;
    setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(s, F_SETFD, FD_CLOEXEC);
}

int socket_listen(SocketAddress *where, Error *err)
{
    memset(where, 0, sizeof *where);
    gethostname(where->host, sizeof where->host - 1);
    own_addresses(where);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in any = {.sin_family = AF_INET};
    socklen_t length = sizeof any;
    if (s < 0 || bind(s, (struct sockaddr *)&any, sizeof any) != 0 || listen(s, 1024) != 0 || getsockname(s, (struct sockaddr *)&any, &length) != 0) {
        error_set(err, "%s: cannot listen for the other ranks:", where->host);
        if (s >= 0)
            close(s);
        return -1;
    }
    tune(s);
    where->port = ntohs(any.sin_port);
    return s;
}

enum { MOST_SECONDS = 1000000 }; /* of one poll, which counts milliseconds in int */

static int ready(int s, short events, double seconds)
{
    struct pollfd p = {.fd = s, .events = events};
    double end = clock_seconds() + seconds;
    for (;;) {
        double left = end - clock_seconds();
        int n = poll(&p, 1, left > MOST_SECONDS ? MOST_SECONDS * 1000 : left > 0 ? (int)(left * 1000) + 1 : 0);
        if (n > 0)
            return 0;
        if (n == 0 ? left <= MOST_SECONDS : errno != EINTR) {
            errno = n == 0 ? ETIMEDOUT : errno;
            return -1;
        }
    }
}

int socket_accept(int listener, double seconds, Error *err)
{
    int s = ready(listener, POLLIN, seconds) == 0 ? accept(listener, NULL, NULL) : -1;
    if (s < 0)
        return error_set(err, "no other rank has come:");
    tune(s);
    return s;
}

static int connect_one(const char *address, int port)
{
    char service[16];
    struct addrinfo *found, hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    snprintf(service, sizeof service, "%d", port);
    if (!*address || getaddrinfo(address, service, &hints, &found) != 0)
        return -1;
    int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), status = -1;
    if (s >= 0)
        status = connect(s, found->ai_addr, found->ai_addrlen);
    if (s >= 0 && status != 0 && errno == EINPROGRESS && ready(s, POLLOUT, 5) == 0) {
        int failure = 0;
        socklen_t length = sizeof failure;
        getsockopt(s, SOL_SOCKET, SO_ERROR, &failure, &length);
        status = failure ? -1 : 0;
        errno = failure ? failure : errno;
    }
    freeaddrinfo(found);
    if (status == 0) {
        fcntl(s, F_SETFL, fcntl(s, F_GETFL) & ~O_NONBLOCK);
        tune(s);
        return s;
    }
    if (s >= 0)
        close(s);
    return -1;
}

int socket_connect(const SocketAddress *to, double seconds, Error *err)
{
    char here[64] = "";
    gethostname(here, sizeof here - 1);
    bool same = strcmp(here, to->host) == 0;
    double end = clock_seconds() + seconds;
    do {
        int s = same ? connect_one("127.0.0.1", to->port) : -1;
        for (int i = 0; i < 4 && s < 0; i++)
            s = connect_one(to->addresses[i], to->port);
        if (s < 0)
            s = connect_one(to->host, to->port);
        if (s >= 0)
            return s;
        usleep(50000);
    } while (clock_seconds() < end);
    return error_set(err, "%s, port %d: cannot be reached:", to->host, to->port);
}

int socket_send(int s, const void *data, size_t bytes, Error *err)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = send(s, (const char *)data + done, bytes - done, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            return error_set(err, "a connection is lost:");
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

int socket_receive(int s, void *data, size_t bytes, double seconds, Error *err)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = ready(s, POLLIN, seconds) == 0 ? recv(s, (char *)data + done, bytes - done, 0) : -1;
        if (n == 0 || (n < 0 && errno != EINTR)) {
            errno = n == 0 ? ECONNRESET : errno;
            return error_set(err, "a connection is lost:");
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}
