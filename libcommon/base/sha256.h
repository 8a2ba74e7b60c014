/* SHA-256 (FIPS 180-4) of bytes in memory. */
#ifndef BASE_SHA256_H
#define BASE_SHA256_H

#include <stddef.h>

/* hex: the digest as 64 lower-case digits and a NUL. */
void sha256_hex(const void *data, size_t length, char hex[65]);

#endif
