// The other half of race_check.h; compiled without instrumentation.
#define SHIM_RACE_CHECK
#include "race_check.h"

#include <dlfcn.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <unordered_map>

namespace {

using shim::races::Region;

struct Access {
    unsigned block;
    unsigned thread;
    std::uint64_t interval;  // between two barriers, counted over the whole launch; 0: never
    const char* code;
    bool atomic;
};

// The accesses to a byte that a later one can race with, the least of them: blocks run one after the other, and
// what a store is ordered behind is behind everything after that store as well.
struct Byte {
    Access store{};
    Access load{};       // the first one since the store in the latest interval with one
    Access other{};      // one by another thread in that interval
    Access elsewhere{};  // one by another block than that of `load`
};

constexpr std::uintptr_t kPage = 64;
std::unordered_map<std::uintptr_t, std::array<Byte, kPage>> pages;

Region shared[2];
Region own_stack;
Access self;
std::uint64_t interval = 0;
bool watching = false;
std::string race;

bool inside(const Region& region, const char* address) {
    return address >= region.start && address < region.start + region.size;
}

bool unordered(const Access& earlier, const Access& now) {
    if (earlier.interval == 0 || (earlier.atomic && now.atomic)) return false;
    if (earlier.block != now.block) return true;
    return earlier.thread != now.thread && earlier.interval == now.interval;
}

std::string who(const Access& access, const char* does) {
    Dl_info library{};
    dladdr(access.code, &library);
    char text[128];
    // A return address: the call lies before it.
    std::snprintf(text, sizeof text, "thread %u of block %u %s (<0x%tx>)", access.thread, access.block, does,
                  access.code - 1 - static_cast<const char*>(library.dli_fbase));
    return text;
}

void compare(const char* address, const Access& earlier, const char* did, const Access& now, const char* does) {
    if (!race.empty() || !unordered(earlier, now)) return;
    const bool is_shared = inside(shared[0], address) || inside(shared[1], address);
    race = std::string("a race in ") + (is_shared ? "shared" : "global") + " memory: " + who(earlier, did) + ", " +
           who(now, does) + ", nothing in between";
}

void store(const char* address, Byte& byte, const Access& now) {
    compare(address, byte.store, "stores", now, "stores");
    for (const Access& load : {byte.load, byte.other, byte.elsewhere}) {
        compare(address, load, "loads", now, "stores");
    }
    byte = Byte{};
    byte.store = now;
}

void load(const char* address, Byte& byte, const Access& now) {
    compare(address, byte.store, "stores", now, "loads");
    if (byte.load.interval == now.interval) {
        if (byte.load.thread != now.thread) byte.other = now;
        return;
    }
    if (byte.load.interval != 0 && byte.load.block != now.block) byte.elsewhere = byte.load;
    byte.load = now;
    byte.other = Access{};
}

void see(const void* start, std::size_t size, bool stores, const void* code, bool atomic = false) {
    const char* first = static_cast<const char*>(start);
    if (!watching || inside(own_stack, first)) return;
    Access now = self;
    now.interval = interval;
    now.code = static_cast<const char*>(code);
    now.atomic = atomic;
    for (const char* address = first; address < first + size; ++address) {
        const auto number = reinterpret_cast<std::uintptr_t>(address);
        Byte& byte = pages[number / kPage][number % kPage];
        stores ? store(address, byte, now) : load(address, byte, now);
    }
}

}  // namespace

namespace shim::races {

void begin_launch(Region static_shared, Region dynamic_shared) {
    shared[0] = static_shared;
    shared[1] = dynamic_shared;
    pages.clear();
    race.clear();
    interval = 0;
}

// Shared memory is another block's, not another one's that it shares with the last.
void begin_block(unsigned block) {
    self.block = block;
    ++interval;
    for (const Region& region : shared) {
        const auto start = reinterpret_cast<std::uintptr_t>(region.start);
        for (std::uintptr_t number = start; number < start + region.size; ++number) {
            const auto page = pages.find(number / kPage);
            if (page != pages.end()) page->second[number % kPage] = Byte{};
        }
    }
}

void pass_barrier() { ++interval; }

void enter_thread(unsigned thread, Region stack) {
    self.thread = thread;
    own_stack = stack;
    watching = true;
}

void leave_thread() { watching = false; }

void update_atomically(const void* address, std::size_t size, const void* caller) {
    see(address, size, true, caller, true);
}

std::string found() { return race; }

}  // namespace shim::races

// What instrumented code calls.
#define SEE(NAME, SIZE, STORES) \
    extern "C" void __tsan_##NAME(void* address) { see(address, SIZE, STORES, __builtin_return_address(0)); }
#define SEE_SIZE(SIZE)                        \
    SEE(read##SIZE, SIZE, false)              \
    SEE(write##SIZE, SIZE, true)              \
    SEE(unaligned_read##SIZE, SIZE, false)    \
    SEE(unaligned_write##SIZE, SIZE, true)
SEE_SIZE(1)
SEE_SIZE(2)
SEE_SIZE(4)
SEE_SIZE(8)
SEE_SIZE(16)
extern "C" void __tsan_read_range(void* address, std::size_t size) {
    see(address, size, false, __builtin_return_address(0));
}
extern "C" void __tsan_write_range(void* address, std::size_t size) {
    see(address, size, true, __builtin_return_address(0));
}
// Of the shim itself: whether a static variable has been initialised.
extern "C" unsigned char __tsan_atomic8_load(const volatile unsigned char* address, int) {
    return __atomic_load_n(address, __ATOMIC_ACQUIRE);
}
extern "C" void __tsan_vptr_update(void**, void*) {}
extern "C" void __tsan_vptr_read(void**) {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
extern "C" void __tsan_init() {}
