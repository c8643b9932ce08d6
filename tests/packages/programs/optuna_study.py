# SPDX-License-Identifier: MIT
"""optuna: a study with a sampler that learns, trials that are pruned, a trial that is running at
the epoch; trials in threads.

live: rounds=20 needs=optuna
"""
import sys

import optuna
import pyheap

optuna.logging.disable_propagation()
optuna.logging.set_verbosity(optuna.logging.ERROR)


def objective(trial):
    x = trial.suggest_float("x", -5, 5)
    kind = trial.suggest_categorical("kind", ["square", "cube"])
    for step in range(3):
        trial.report(abs(x) / (step + 1), step)
        if step == 1:
            pyheap.epoch()
        if trial.should_prune():
            raise optuna.TrialPruned()
    return x ** 2 if kind == "square" else abs(x) ** 3


def main():
    rounds = int(sys.argv[1])
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=1, n_startup_trials=5),
                                pruner=optuna.pruners.MedianPruner(n_startup_trials=5))
    threads = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=2))
    for r in range(rounds):
        study.optimize(objective, n_trials=1)
        threads.optimize(lambda trial: trial.suggest_int("n", 0, 9), n_trials=4, n_jobs=2)
        assert len(study.trials) == r + 1 and len(threads.trials) == 4 * (r + 1)
        if r % 10 == 0:
            print(r, f"{study.best_value:.6f}", study.best_params["kind"])


main()
