/* Errors as values. A library function that can fail takes an `Error *` and returns -1 (or NULL) after filling it;
 * the tool prints the text once and decides what to do. Nothing in libcommon prints or exits, except memory.h when
 * memory runs out. A text names the input and the place first: "FILE:LINE: reason". */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

typedef struct Error {
    char text[1024];
} Error;

/* Fills err (which may be NULL) and returns -1. Where the format ends in ':', the system's reason (errno) is
 * appended, as in error_set(err, "%s:", path). */
int error_set(Error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts "prefix: " before a text that is already there; returns -1. */
int error_prefix(Error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
