/* SPDX-License-Identifier: MIT */
/* error.c - texts and exit statuses of the error codes */
#include "error.h"

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
