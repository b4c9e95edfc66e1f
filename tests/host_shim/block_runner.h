// Runs a kernel on the host: the threads of one block are fibres, blocks run one after the other.
//
// A fibre runs until it reaches a barrier or returns; when all have arrived, the barrier opens. Shuffling the
// order of the threads (anew between any two barriers) and of the blocks with a seed makes a missing barrier or a
// dependence between blocks show as different results. Shared memory holds garbage when a block starts, as on
// a GPU. What a GPU answers with a hang or with undefined behaviour is an error message here.
#pragma once

#include <sys/mman.h>
#include <ucontext.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "race_check.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

struct uint3 {
    unsigned int x, y, z;
};

struct dim3 {
    unsigned int x, y, z;
    constexpr dim3(unsigned int x_ = 1, unsigned int y_ = 1, unsigned int z_ = 1) : x(x_), y(y_), z(z_) {}
};

// The running thread; the scheduler sets them before it resumes a fibre.
static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;

// All variables declared __shared__ lie in one section of the library; the linker gives its bounds. Weak: a
// kernel without static shared memory has no such section.
extern "C" {
extern char __start_shim_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_shim_shared[] __attribute__((weak, visibility("hidden")));
}

namespace shim {

// Mirrored by a ctypes structure in host_kernel.py.
struct Launch {
    std::uint32_t grid[3];
    std::uint32_t block[3];
    std::uint64_t dynamic_shared_bytes;
    std::int64_t seed;  // negative: threads and blocks in their natural order
};

constexpr std::size_t kStackBytes = 256 * 1024;
constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kGuardBytes = 256;
constexpr unsigned char kGuard = 0xC3;

enum class State { kReady, kWaiting, kReturned };

struct Fibre {
    ucontext_t context;
    char* stack = nullptr;
    uint3 index{};
    State state = State::kReturned;
    int barrier_line = 0;
};

class BlockRunner {
  public:
    // Returns an empty string, or what was wrong with the kernel.
    std::string run(const Launch& launch, std::function<void()> body) {
        body_ = std::move(body);
        launch_ = launch;
        random_.seed(static_cast<std::uint64_t>(launch.seed));
        gridDim = dim3(launch.grid[0], launch.grid[1], launch.grid[2]);
        blockDim = dim3(launch.block[0], launch.block[1], launch.block[2]);
        dynamic_shared_ = std::vector<char>(launch.dynamic_shared_bytes + 2 * kGuardBytes);
        prepare(blockDim.x * blockDim.y * blockDim.z);

        races::begin_launch(static_shared(), {dynamic_shared(), launch.dynamic_shared_bytes});
        std::vector<std::uint64_t> blocks(std::uint64_t{gridDim.x} * gridDim.y * gridDim.z);
        for (std::uint64_t i = 0; i < blocks.size(); ++i) blocks[i] = i;
        shuffle(blocks);
        for (std::uint64_t flat : blocks) {
            blockIdx.x = static_cast<unsigned>(flat % gridDim.x);
            blockIdx.y = static_cast<unsigned>(flat / gridDim.x % gridDim.y);
            blockIdx.z = static_cast<unsigned>(flat / gridDim.x / gridDim.y);
            races::begin_block(static_cast<unsigned>(flat));
            std::string fault = run_block();
            if (fault.empty()) fault = races::found();
            if (!fault.empty()) {
                return "block (" + triple(blockIdx.x, blockIdx.y, blockIdx.z) + "): " + fault;
            }
        }
        return {};
    }

    // Called by a fibre. noipa: the compiler must assume that every variable may change here.
    __attribute__((noipa)) void barrier(int line) {
        races::leave_thread();
        Fibre* self = current_;
        self->state = State::kWaiting;
        self->barrier_line = line;
        swapcontext(&self->context, &scheduler_);
    }

    // 256-byte aligned, as cudaMalloc's memory and the base of shared memory are.
    char* dynamic_shared() {
        const auto start = reinterpret_cast<std::uintptr_t>(dynamic_shared_.data());
        return reinterpret_cast<char*>((start + kGuardBytes - 1) / kGuardBytes * kGuardBytes);
    }

  private:
    std::string run_block() {
        poison_shared();
        for (Fibre& fibre : fibres_) fibre.state = State::kReady;
        for (;;) {
            shuffle(order_);
            for (std::size_t i : order_) resume(fibres_[i]);
            std::string fault = check_guards();
            if (!fault.empty()) return fault;
            const Fibre* waiting = nullptr;
            const Fibre* returned = nullptr;
            for (const Fibre& fibre : fibres_) {
                if (fibre.state == State::kReturned) {
                    returned = &fibre;
                } else if (waiting != nullptr && waiting->barrier_line != fibre.barrier_line) {
                    return "divergent barrier: " + at(*waiting) + ", " + at(fibre);
                } else {
                    waiting = &fibre;
                }
            }
            if (waiting == nullptr) return {};
            if (returned != nullptr) {
                return "divergent barrier: " + at(*waiting) + ", " + at(*returned);
            }
            for (Fibre& fibre : fibres_) fibre.state = State::kReady;
            races::pass_barrier();
        }
    }

    void resume(Fibre& fibre) {
        current_ = &fibre;
        threadIdx = fibre.index;
        races::enter_thread(static_cast<unsigned>(&fibre - fibres_.data()), {fibre.stack, kStackBytes});
        swapcontext(&scheduler_, &fibre.context);
    }

    static void fibre_main();

    void prepare(std::size_t count) {
        while (stacks_.size() < count) stacks_.push_back(new_stack());
        fibres_.assign(count, Fibre{});
        order_.resize(count);
        for (std::size_t i = 0; i < count; ++i) {
            const auto flat = static_cast<unsigned>(i);
            order_[i] = i;
            fibres_[i].stack = stacks_[i];
            fibres_[i].index = {flat % blockDim.x, flat / blockDim.x % blockDim.y,
                                flat / blockDim.x / blockDim.y};
        }
        start_fibres();
    }

    // A fibre that returned loops and serves the next block; one that was abandoned must start afresh, which
    // `prepare` does at the next launch.
    void start_fibres() {
        for (Fibre& fibre : fibres_) {
            getcontext(&fibre.context);
            fibre.context.uc_stack.ss_sp = fibre.stack;
            fibre.context.uc_stack.ss_size = kStackBytes;
            fibre.context.uc_link = nullptr;
            makecontext(&fibre.context, fibre_main, 0);
        }
    }

    // Stacks are kept for the life of the library. The page below each one is not accessible, so that a kernel
    // with a huge local array faults instead of writing over its neighbour.
    static char* new_stack() {
        void* base = mmap(nullptr, kStackBytes + kPageBytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base == MAP_FAILED) {
            std::perror("host shim: no memory for the stack of a thread");
            std::abort();
        }
        mprotect(base, kPageBytes, PROT_NONE);
        return static_cast<char*>(base) + kPageBytes;
    }

    void poison_shared() {
#ifdef __SANITIZE_ADDRESS__
        __asan_unpoison_memory_region(dynamic_shared_.data(), dynamic_shared_.size());
#endif
        // All bits set is NaN as a float and -1 as an integer: neither passes for a sum that starts at zero.
        const unsigned char fills[] = {0xFF, 0x7F, 0xA5, 0x01};
        const unsigned char fill = launch_.seed < 0 ? 0xFF : fills[random_() % 4];
        if (static_shared().size != 0) std::memset(__start_shim_shared, fill, static_shared().size);
        std::memset(dynamic_shared(), fill, launch_.dynamic_shared_bytes);
        std::memset(dynamic_shared() + launch_.dynamic_shared_bytes, kGuard, guard_bytes());
#ifdef __SANITIZE_ADDRESS__
        // Loads past the end are seen as well.
        __asan_poison_memory_region(dynamic_shared() + launch_.dynamic_shared_bytes, guard_bytes());
#endif
    }

    static races::Region static_shared() {
        if (__start_shim_shared == nullptr) return {nullptr, 0};
        return {__start_shim_shared, static_cast<std::size_t>(__stop_shim_shared - __start_shim_shared)};
    }

    std::size_t guard_bytes() {
        const char* end = dynamic_shared_.data() + dynamic_shared_.size();
        return static_cast<std::size_t>(end - (dynamic_shared() + launch_.dynamic_shared_bytes));
    }

    std::string check_guards() {
#ifdef __SANITIZE_ADDRESS__
        return {};
#endif
        const char* guard = dynamic_shared() + launch_.dynamic_shared_bytes;
        for (std::size_t i = 0; i < guard_bytes(); ++i) {
            if (static_cast<unsigned char>(guard[i]) != kGuard) {
                return "wrote past the " + std::to_string(launch_.dynamic_shared_bytes) +
                       " bytes of dynamic shared memory";
            }
        }
        return {};
    }

    template <class T>
    void shuffle(std::vector<T>& items) {
        if (launch_.seed < 0) return;
        for (std::size_t left = items.size(); left > 1; --left) {
            std::swap(items[left - 1], items[random_() % left]);
        }
    }

    static std::string triple(unsigned x, unsigned y, unsigned z) {
        return std::to_string(x) + ", " + std::to_string(y) + ", " + std::to_string(z);
    }

    static std::string at(const Fibre& fibre) {
        const std::string who = "thread (" + triple(fibre.index.x, fibre.index.y, fibre.index.z) + ")";
        if (fibre.state == State::kReturned) return who + " returned";
        return who + " waits at line " + std::to_string(fibre.barrier_line);
    }

    std::function<void()> body_;
    Launch launch_{};
    std::mt19937_64 random_;
    ucontext_t scheduler_{};
    Fibre* current_ = nullptr;
    std::vector<Fibre> fibres_;
    std::vector<char*> stacks_;
    std::vector<std::size_t> order_;
    std::vector<char> dynamic_shared_;
};

// static, not inline: the loader would merge inline variables of several kernels' libraries into one.
static BlockRunner runner;
static std::mutex runner_mutex;  // ctypes lets other Python threads run during a launch

inline void BlockRunner::fibre_main() {
    for (;;) {
        runner.body_();
        races::leave_thread();
        Fibre* self = runner.current_;
        self->state = State::kReturned;
        swapcontext(&self->context, &runner.scheduler_);
    }
}

}  // namespace shim
