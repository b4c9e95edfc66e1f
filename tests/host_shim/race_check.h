// What a kernel's threads load and store, checked for races: block_runner.h tells it who runs, the compiler's
// instrumentation for threads (-fsanitize=thread, without its library) tells it every load and store.
//
// Two threads race at a byte if one of them stores and nothing orders them: within a block a barrier does,
// between blocks of a launch nothing. Atomics do not race with each other. What is found does not depend on the
// order in which threads ran, unlike a difference in results.
#pragma once

#include <cstddef>
#include <string>

namespace shim::races {

struct Region {
    const char* start;
    std::size_t size;
};

#if defined(__SANITIZE_THREAD__) || defined(SHIM_RACE_CHECK)
void begin_launch(Region static_shared, Region dynamic_shared);
void begin_block(unsigned block);
void pass_barrier();
void enter_thread(unsigned thread, Region stack);
void leave_thread();
void update_atomically(const void* address, std::size_t size, const void* caller);
// Return the first race of the launch, or nothing; code is named as <offset in the library>.
std::string found();
#else
inline void begin_launch(Region, Region) {}
inline void begin_block(unsigned) {}
inline void pass_barrier() {}
inline void enter_thread(unsigned, Region) {}
inline void leave_thread() {}
inline void update_atomically(const void*, std::size_t, const void*) {}
inline std::string found() { return {}; }
#endif

}  // namespace shim::races
