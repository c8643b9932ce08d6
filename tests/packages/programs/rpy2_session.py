# SPDX-License-Identifier: MIT
"""rpy2, of Debian: R in the process, with its own memory, collector and stack checks; R calls Python in
the middle of an optimisation, and Python takes the epoch there; an error of R's, a file that R writes.

live: rounds=30 needs=rpy2 debian=python3-rpy2
"""
import os
import sys

import pyheap
import rpy2.rinterface as rinterface
import rpy2.robjects as robjects
from rpy2.rinterface_lib.embedded import RRuntimeError

SETUP = """
set.seed(4)
state <- new.env()
state$lines <- file("lines.txt", "w")
state$kept <- list()
fit <- function(r, during) {
    x <- seq(0, 1, length.out = 50)
    y <- 1 + (2 + r %% 5) * x + rnorm(50, sd = 0.01)
    model <- lm(y ~ x)
    calls <- 0
    found <- optim(c(0, 0), function(p) {
        calls <<- calls + 1
        if (calls == 20) during()
        sum((y - p[1] - p[2] * x)^2)
    })
    state$kept[[r %% 20 + 1]] <- rnorm(1000)
    writeLines(sprintf("round %d", as.integer(r)), state$lines)
    if (r %% 3 == 0) gc()
    c(coef(model)[2], found$par[2], calls)
}
"""


def main():
    rounds = int(sys.argv[1])
    rinterface.initr()
    robjects.r(SETUP)
    fit = robjects.globalenv["fit"]
    epochs = []

    @rinterface.rternalize
    def during():
        epochs.append(pyheap.epoch())
        return rinterface.IntSexpVector([len(epochs)])

    matrix = robjects.r("matrix(as.numeric(1:400) %% 17, 20)")
    for r in range(rounds):
        slope, found, calls = fit(float(r), during)
        assert abs(slope - 2 - r % 5) < 0.1 and abs(found - slope) < 0.1 and calls > 20
        assert len(epochs) == r + 1
        try:
            robjects.r("stop('on purpose')")
        except RRuntimeError as error:
            assert "on purpose" in str(error)
        total = robjects.r["sum"](robjects.r["%*%"](matrix, robjects.r["t"](matrix)))[0]
        if r % 10 == 0:
            print(r, f"{slope:.6f} {found:.3f}", int(total))
    robjects.r("close(state$lines)")
    with open("lines.txt", encoding="ascii") as file:
        assert sum(1 for _ in file) == rounds
    os.remove("lines.txt")


main()
