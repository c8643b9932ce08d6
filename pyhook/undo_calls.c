/* SPDX-License-Identifier: MIT */
/* undo_calls.c - the calls that make a file shorter, but for those that open it: see undo.c */
#include "libc_next.h"
#include "undo.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT int ftruncate(int fd, off_t length)
{
    bool undo = ph_undo_before_ftruncate(fd, length);
    int rc = ph_libc_next()->ftruncate(fd, length);
    ph_undo_after(undo);
    return rc;
}

EXPORT int ftruncate64(int fd, off64_t length)
{
    bool undo = ph_undo_before_ftruncate(fd, length);
    int rc = ph_libc_next()->ftruncate64(fd, length);
    ph_undo_after(undo);
    return rc;
}

EXPORT int truncate(const char *path, off_t length)
{
    bool undo = ph_undo_before_truncate(path, length);
    int rc = ph_libc_next()->truncate(path, length);
    ph_undo_after(undo);
    return rc;
}

EXPORT int truncate64(const char *path, off64_t length)
{
    bool undo = ph_undo_before_truncate(path, length);
    int rc = ph_libc_next()->truncate64(path, length);
    ph_undo_after(undo);
    return rc;
}

EXPORT int creat(const char *path, mode_t mode)
{
    return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

EXPORT int creat64(const char *path, mode_t mode)
{
    return open64(path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}
