/* SPDX-License-Identifier: MIT */
/*
 * criterion.h - as much of Criterion as test_heap_threads.c uses, for the thread sanitizer
 *
 * Criterion's own runner maps its memory where the sanitizer's shadow lies. Here each test runs
 * in a forked child of a process without threads, and main is part of this header.
 */
#ifndef SANITIZED_CRITERION_H
#define SANITIZED_CRITERION_H

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

struct sanitized_test {
    void (*init)(void);
    int signal; /* that the test is to end by */
    unsigned timeout;
    const char *name;
    void (*run)(void);
    struct sanitized_test *next;
};

static struct sanitized_test sanitized_suite, *sanitized_tests;

#define TestSuite(suite, ...)                                                                  \
    static void __attribute__((constructor(200))) suite##_register(void)                       \
    {                                                                                          \
        sanitized_suite = (struct sanitized_test){__VA_ARGS__};                                \
    }

#define Test(suite, test, ...)                                                                 \
    static void suite##_##test(void);                                                          \
    static void __attribute__((constructor)) suite##_##test##_register(void)                   \
    {                                                                                          \
        static struct sanitized_test t = {__VA_ARGS__};                                        \
        t.name = #test;                                                                        \
        t.run = suite##_##test;                                                                \
        t.next = sanitized_tests;                                                              \
        sanitized_tests = &t;                                                                  \
    }                                                                                          \
    static void suite##_##test(void)

static inline void sanitized_check(int holds, const char *what, int line)
{
    if (!holds) {
        fprintf(stderr, "line %d: %s\n", line, what);
        abort();
    }
}

#define cr_assert(condition, ...)  sanitized_check((condition) != 0, #condition, __LINE__)
#define cr_assert_eq(a, b, ...)    cr_assert((a) == (b))
#define cr_assert_not_null(p, ...) cr_assert((p) != NULL)

/* There is no runner that is to be kept out of the heap's range (test_heap_model.h). */
__attribute__((constructor(200))) static void sanitized_no_runner(void)
{
    setenv("BXFI_MAP", "none", 0);
}

int main(void)
{
    int failed = 0;
    for (struct sanitized_test *t = sanitized_tests; t; t = t->next) {
        pid_t child = fork();
        if (child == 0) {
            alarm(sanitized_suite.timeout);
            sanitized_suite.init();
            t->run();
            exit(0); /* the sanitizer makes 66 of it if it has found something */
        }
        int status;
        waitpid(child, &status, 0);
        int good = t->signal ? WIFSIGNALED(status) && WTERMSIG(status) == t->signal
                             : WIFEXITED(status) && WEXITSTATUS(status) == 0;
        if (!good)
            fprintf(stderr, "%s: failed, status %x\n", t->name, (unsigned)status);
        failed += !good;
    }
    return failed != 0;
}

#endif
