/* SPDX-License-Identifier: MIT */
/*
 * stand_in.c - a process that looks like a Python to libpyheap.so
 *
 * It calls itself what STAND_IN_VERSION says and has no other symbol of Python. If the library
 * lets it start, it prints a line, which no test wants.
 */
#include <stdio.h>
#include <stdlib.h>

const char *Py_GetVersion(void);

const char *Py_GetVersion(void)
{
    const char *version = getenv("STAND_IN_VERSION");
    return version ? version : "";
}

int main(void)
{
    puts("started");
    return 0;
}
