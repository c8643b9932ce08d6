/* SPDX-License-Identifier: MIT */
/* error.c - texts and exit statuses of the error codes, and errno's */
#include "error.h"

#include <errno.h>
#include <stddef.h>

static const struct {
    int code, status;
    const char *name, *text;
} errors[] = {{0, 0, "PH_OK", "success"},
#define X(name, code, status, text) {code, status, #name, text},
              PH_ERRORS(X)
#undef X
};

static size_t find(int err)
{
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        if (errors[i].code == err)
            return i;
    return find(PH_EINTERNAL);
}

int ph_error_of(int error_number)
{
    switch (error_number) {
    case ENOENT:
    case ENOTDIR:
        return PH_ENOENT;
    case EACCES:
    case EPERM:
        return PH_EACCES;
    case EROFS:
        return PH_EROFS;
    case ENOSPC:
    case EDQUOT:
        return PH_EFULL;
    case ENOMEM:
        return PH_ENOMEM;
    case ENAMETOOLONG:
        return PH_EUSAGE;
    case EMFILE:
    case ENFILE:
        return PH_EMFILE;
    default:
        return PH_EIO;
    }
}

const char *ph_error_text(int err)
{
    return errors[find(err)].text;
}

const char *ph_error_name(int err)
{
    return errors[find(err)].name;
}

bool ph_error_is_status(int status)
{
    for (size_t i = 1; i < sizeof errors / sizeof errors[0]; i++)
        if (errors[i].status == status)
            return true;
    return false;
}

int ph_error_status(int err)
{
    return errors[find(err)].status;
}
