/* Connections between processes of a job: TCP, on which a rank that is gone shows at once. */
#ifndef DIST_SOCKET_H
#define DIST_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include "base/error.h"

/* Where a process can be reached, as others are told. */
typedef struct SocketAddress {
    char host[64];
    char addresses[4][48]; /* numeric, "" where there are no more */
    int port;
} SocketAddress;

/* Listens on a port that the system chooses. The descriptor, or -1. */
int socket_listen(SocketAddress *where, Error *err);
int socket_accept(int listener, double seconds, Error *err);
int socket_connect(const SocketAddress *to, double seconds, Error *err);
/* All of it, or -1. */
int socket_send(int socket, const void *data, size_t bytes, Error *err);
int socket_receive(int socket, void *data, size_t bytes, double seconds, Error *err);

#endif
