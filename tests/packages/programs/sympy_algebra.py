# SPDX-License-Identifier: MIT
"""SymPy: expressions that are one object each as long as a cache holds them, integers of GMP's
where gmpy2 is there, a function that was made from an expression.

live: rounds=20 needs=sympy,gmpy2
"""
import sys

import gmpy2
import pyheap
import sympy


def main():
    rounds = int(sys.argv[1])
    x, y = sympy.symbols("x y")
    polynomial, fraction, large = sympy.Integer(1), sympy.Rational(1, 3), gmpy2.mpz(3)
    evaluate = sympy.lambdify((x, y), sympy.sin(x) * y + x**2)
    context = gmpy2.get_context()
    context.precision = 200
    root = gmpy2.mpfr(2)
    for r in range(rounds):
        polynomial = sympy.expand(polynomial * (x + r % 5 - y)) if r % 8 else x + r
        fraction = fraction / 2 + sympy.Rational(1, r + 2) if r % 30 else sympy.Rational(1, 3)
        pyheap.epoch()
        assert sympy.symbols("x") is x and gmpy2.get_context() is context
        assert sympy.expand(sympy.diff(sympy.integrate(polynomial, x), x) - polynomial) == 0
        assert abs(evaluate(0.5, 2) - float((sympy.sin(x) * y + x**2).subs({x: 0.5, y: 2}))) < 1e-9
        large = gmpy2.powmod(large + r, 65537, (gmpy2.mpz(1) << 521) - 1)
        root = gmpy2.sqrt(root + 1)
        if r % 10 == 0:
            print(r, sympy.factor_list(polynomial)[0], len(str(fraction)), large % 10**9,
                  str(root)[:50])


main()
