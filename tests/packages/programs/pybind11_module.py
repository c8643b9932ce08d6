# SPDX-License-Identifier: MIT
"""pybind11: a module built here, with C++ containers, an exception of C++ and threads of its own.

live: rounds=30 needs=pybind11
"""
import importlib.util
import pathlib
import subprocess
import sys
import sysconfig
import tempfile

import pybind11
import pyheap

SOURCE = r"""
#include <condition_variable>
#include <map>
#include <mutex>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <stdexcept>
#include <thread>
namespace py = pybind11;

class Worker {
  public:
    Worker() : thread_([this] { run(); }) {}
    ~Worker() {
        { std::lock_guard<std::mutex> g(mutex_); stop_ = true; }
        changed_.notify_all();
        thread_.join();
    }
    long ask(long n) {
        py::gil_scoped_release release;
        std::unique_lock<std::mutex> g(mutex_);
        asked_ = n, has_ = false;
        changed_.notify_all();
        changed_.wait(g, [this] { return has_; });
        return answer_;
    }
    std::map<std::string, std::vector<long>> table;
  private:
    void run() {
        std::unique_lock<std::mutex> g(mutex_);
        for (;;) {
            changed_.wait(g, [this] { return stop_ || asked_ >= 0; });
            if (stop_) return;
            answer_ = asked_ * asked_, asked_ = -1, has_ = true;
            changed_.notify_all();
        }
    }
    std::mutex mutex_;
    std::condition_variable changed_;
    bool stop_ = false, has_ = false;
    long asked_ = -1, answer_ = 0;
    std::thread thread_;
};

static void call_and_throw(py::function during) {
    try {
        throw std::runtime_error("thrown in C++");
    } catch (...) {
        during();  // with an exception in flight
        throw;
    }
}

PYBIND11_MODULE(made_here, m) {
    py::class_<Worker>(m, "Worker").def(py::init<>()).def("ask", &Worker::ask)
        .def("put", [](Worker &w, const std::string &k, long n) { w.table[k].push_back(n); })
        .def("get", [](Worker &w) { return w.table; });
    m.def("call_and_throw", call_and_throw);
}
"""


def build():
    with tempfile.TemporaryDirectory() as directory:
        source, built = pathlib.Path(directory, "made_here.cc"), directory + "/made_here.so"
        source.write_text(SOURCE)
        subprocess.run(["c++", "-std=c++17", "-O1", "-shared", "-fPIC", "-o", built, source,
                        "-I", pybind11.get_include(), "-I", sysconfig.get_paths()["include"]],
                       check=True)
        spec = importlib.util.spec_from_file_location("made_here", built)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module  # its file is gone: the pool must have all of it


def main():
    rounds = int(sys.argv[1])
    module = build()
    worker = module.Worker()
    for r in range(rounds):
        worker.put(f"key {r % 7}", r)
        try:
            module.call_and_throw(lambda: pyheap.epoch("in a catch of C++"))
        except RuntimeError as error:
            assert str(error) == "thrown in C++"
        assert worker.ask(r) == r * r
        assert sum(map(len, worker.get().values())) == r + 1
        if r % 10 == 0:
            print(r, len(worker.get()))


main()
