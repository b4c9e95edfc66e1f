"""Runs ``kernels/*.cu`` on the CPU, so that a kernel's bits can be compared where there is no GPU.

``cuda_shim.h`` is as much of CUDA C++ as our kernels use, on top of ``block_runner.h``, which runs the
threads of a block as fibres. ``build.py`` compiles a source behind the two into a shared library;
``HostKernel`` launches its entry points on NumPy arrays; ``cuda_on_host`` lets the launchers in
``gpuscalp/ops/cuda_*.py`` run on it unchanged.
"""
