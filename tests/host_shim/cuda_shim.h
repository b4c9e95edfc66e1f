// As much of CUDA C++ as the kernels of this project use, for a host compiler. Included before a kernel.
//
// Left out on purpose, so that a kernel which uses it does not compile: warp shuffles and votes, cooperative
// groups, textures, atomics on floating-point numbers (their order would be open, so would the bits), and the
// transcendental intrinsics (not correctly rounded). `extern __shared__ T name[];` is rewritten by build.py.
#pragma once

#include <cfloat>
#include <climits>
#include <cmath>
#include <limits>

#include "block_runner.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static __attribute__((section("shim_shared")))
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))

// The line tells one barrier from another: threads that wait at different ones have diverged.
#define __syncthreads() ::shim::runner.barrier(__LINE__)
#define __threadfence() ((void)0)
#define __threadfence_block() ((void)0)

// ---- vectors -----------------------------------------------------------------------------------------

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned int x, y; };
struct alignas(16) uint4 { unsigned int x, y, z, w; };

static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline double2 make_double2(double x, double y) { return {x, y}; }
static inline int2 make_int2(int x, int y) { return {x, y}; }
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// ---- minimum and maximum -----------------------------------------------------------------------------

namespace shim {

// A number wins over NaN, and -0 is less than +0 (PTX ISA, min and max). The C library leaves the zeros
// open: x86 returns whichever comes second.
template <class T>
inline T lesser(T a, T b) {
    if (std::isnan(a)) return b;
    if (std::isnan(b)) return a;
    if (a == b) return std::signbit(a) ? a : b;
    return a < b ? a : b;
}

template <class T>
inline T greater(T a, T b) {
    if (std::isnan(a)) return b;
    if (std::isnan(b)) return a;
    if (a == b) return std::signbit(a) ? b : a;
    return a > b ? a : b;
}

// Conversion as `cvt` does it: out of range saturates. What becomes of NaN differs by width.
template <class To, class From>
inline To saturate(From whole, To of_nan) {
    if (std::isnan(whole)) return of_nan;
    // max() itself may not be representable in From and round up: hence >=.
    if (whole >= static_cast<From>(std::numeric_limits<To>::max())) return std::numeric_limits<To>::max();
    if (whole <= static_cast<From>(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
    return static_cast<To>(whole);
}

template <class To, class From>
inline To bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

}  // namespace shim

// Macros: the C library owns the names, and the compiler would fold its own meaning of them.
#define fminf(a, b) ::shim::lesser<float>((a), (b))
#define fmaxf(a, b) ::shim::greater<float>((a), (b))
#define fmin(a, b) ::shim::lesser<double>((a), (b))
#define fmax(a, b) ::shim::greater<double>((a), (b))

static inline int min(int a, int b) { return a < b ? a : b; }
static inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
static inline long min(long a, long b) { return a < b ? a : b; }
static inline unsigned long min(unsigned long a, unsigned long b) { return a < b ? a : b; }
static inline long long min(long long a, long long b) { return a < b ? a : b; }
static inline unsigned long long min(unsigned long long a, unsigned long long b) { return a < b ? a : b; }
static inline float min(float a, float b) { return ::shim::lesser<float>(a, b); }
static inline double min(double a, double b) { return ::shim::lesser<double>(a, b); }
static inline int max(int a, int b) { return a > b ? a : b; }
static inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
static inline long max(long a, long b) { return a > b ? a : b; }
static inline unsigned long max(unsigned long a, unsigned long b) { return a > b ? a : b; }
static inline long long max(long long a, long long b) { return a > b ? a : b; }
static inline unsigned long long max(unsigned long long a, unsigned long long b) { return a > b ? a : b; }
static inline float max(float a, float b) { return ::shim::greater<float>(a, b); }
static inline double max(double a, double b) { return ::shim::greater<double>(a, b); }

using std::isfinite;
using std::isinf;
using std::isnan;
using std::signbit;

// ---- arithmetic and conversion intrinsics ------------------------------------------------------------

static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fsqrt_rn(float a) { return std::sqrt(a); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dsub_rn(double a, double b) { return a - b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __ddiv_rn(double a, double b) { return a / b; }
static inline double __dsqrt_rn(double a) { return std::sqrt(a); }

static inline int __float2int_rn(float a) { return ::shim::saturate<int>(std::nearbyint(a), 0); }
static inline int __float2int_rz(float a) { return ::shim::saturate<int>(std::trunc(a), 0); }
static inline int __float2int_rd(float a) { return ::shim::saturate<int>(std::floor(a), 0); }
static inline int __float2int_ru(float a) { return ::shim::saturate<int>(std::ceil(a), 0); }
static inline int __double2int_rn(double a) { return ::shim::saturate<int>(std::nearbyint(a), INT_MIN); }
static inline int __double2int_rz(double a) { return ::shim::saturate<int>(std::trunc(a), INT_MIN); }
static inline long long __float2ll_rn(float a) {
    return ::shim::saturate<long long>(std::nearbyint(a), LLONG_MIN);
}
static inline long long __float2ll_rz(float a) { return ::shim::saturate<long long>(std::trunc(a), LLONG_MIN); }
static inline long long __double2ll_rn(double a) {
    return ::shim::saturate<long long>(std::nearbyint(a), LLONG_MIN);
}
static inline long long __double2ll_rz(double a) {
    return ::shim::saturate<long long>(std::trunc(a), LLONG_MIN);
}
static inline long long __double2ll_rd(double a) {
    return ::shim::saturate<long long>(std::floor(a), LLONG_MIN);
}
static inline float __int2float_rn(int a) { return static_cast<float>(a); }
static inline float __uint2float_rn(unsigned a) { return static_cast<float>(a); }
static inline float __ll2float_rn(long long a) { return static_cast<float>(a); }
static inline float __double2float_rn(double a) { return static_cast<float>(a); }
static inline double __int2double_rn(int a) { return static_cast<double>(a); }
static inline double __ll2double_rn(long long a) { return static_cast<double>(a); }

static inline int __float_as_int(float a) { return ::shim::bits<int>(a); }
static inline unsigned __float_as_uint(float a) { return ::shim::bits<unsigned>(a); }
static inline float __int_as_float(int a) { return ::shim::bits<float>(a); }
static inline float __uint_as_float(unsigned a) { return ::shim::bits<float>(a); }
static inline long long __double_as_longlong(double a) { return ::shim::bits<long long>(a); }
static inline double __longlong_as_double(long long a) { return ::shim::bits<double>(a); }

// ---- bits and memory ---------------------------------------------------------------------------------

static inline int __popc(unsigned a) { return __builtin_popcount(a); }
static inline int __popcll(unsigned long long a) { return __builtin_popcountll(a); }
static inline int __clz(int a) { return a == 0 ? 32 : __builtin_clz(static_cast<unsigned>(a)); }
static inline int __clzll(long long a) {
    return a == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(a));
}
static inline int __ffs(int a) { return __builtin_ffs(a); }
static inline int __ffsll(long long a) { return __builtin_ffsll(a); }

template <class T>
inline T __ldg(const T* address) {
    return *address;
}

// ---- atomics on integers: fibres are never interrupted, so a plain update is atomic ----------------------

// Not instrumented: they say themselves what they do, in the name of the kernel's line.
#define SHIM_ATOMICALLY static __attribute__((noinline, no_sanitize("thread")))
#define SHIM_SAY ::shim::races::update_atomically(address, sizeof *address, __builtin_return_address(0))

#define SHIM_ATOMIC(NAME, TYPE, UPDATED)                       \
    SHIM_ATOMICALLY TYPE NAME(TYPE* address, TYPE value) {     \
        SHIM_SAY;                                              \
        const TYPE old = *address;                             \
        *address = (UPDATED);                                  \
        return old;                                            \
    }
#define SHIM_ATOMICS(TYPE)                                     \
    SHIM_ATOMIC(atomicAdd, TYPE, static_cast<TYPE>(old + value)) \
    SHIM_ATOMIC(atomicMin, TYPE, value < old ? value : old)    \
    SHIM_ATOMIC(atomicMax, TYPE, value > old ? value : old)    \
    SHIM_ATOMIC(atomicAnd, TYPE, old & value)                  \
    SHIM_ATOMIC(atomicOr, TYPE, old | value)                   \
    SHIM_ATOMIC(atomicXor, TYPE, old ^ value)                  \
    SHIM_ATOMIC(atomicExch, TYPE, value)                       \
    SHIM_ATOMICALLY TYPE atomicCAS(TYPE* address, TYPE expected, TYPE value) { \
        SHIM_SAY;                                              \
        const TYPE old = *address;                             \
        if (old == expected) *address = value;                 \
        return old;                                            \
    }
SHIM_ATOMICS(int)
SHIM_ATOMICS(unsigned int)
SHIM_ATOMICS(unsigned long long)
#undef SHIM_ATOMICS
#undef SHIM_ATOMIC
#undef SHIM_ATOMICALLY
#undef SHIM_SAY

float atomicAdd(float*, float) = delete;
double atomicAdd(double*, double) = delete;

// ---- what build.py adds behind a kernel --------------------------------------------------------------

namespace shim {

// One code per parameter: [*c] for a pointer [to const], kind, bytes; for instance "*cf4 *i8 i4".
template <class T>
std::string type_code() {
    if constexpr (std::is_pointer_v<T>) {
        using Target = std::remove_pointer_t<T>;
        return std::string("*") + (std::is_const_v<Target> ? "c" : "") + type_code<std::remove_cv_t<Target>>();
    } else if constexpr (std::is_same_v<T, bool>) {
        return "b1";
    } else if constexpr (std::is_floating_point_v<T>) {
        return "f" + std::to_string(sizeof(T));
    } else if constexpr (std::is_integral_v<T>) {
        return (std::is_signed_v<T> ? "i" : "u") + std::to_string(sizeof(T));
    } else {
        return "s" + std::to_string(sizeof(T));
    }
}

template <class... A>
const char* signature(void (*)(A...)) {
    static const std::string text = [] {
        std::string codes;
        ((codes += (codes.empty() ? "" : " ") + type_code<A>()), ...);
        return codes;
    }();
    return text.c_str();
}

template <class... A, std::size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    (void)arguments;
    kernel(*static_cast<A*>(arguments[I])...);
}

template <class... A>
int launch(void (*kernel)(A...), const Launch* how, void** arguments, char* fault, std::size_t fault_bytes) {
    const std::lock_guard<std::mutex> lock(runner_mutex);
    const std::string text = runner.run(
        *how, [=] { call(kernel, arguments, std::make_index_sequence<sizeof...(A)>()); });
    std::snprintf(fault, fault_bytes, "%s", text.c_str());
    return text.empty() ? 0 : 1;
}

}  // namespace shim

#define SHIM_EXPORT extern "C" __attribute__((visibility("default")))
#define SHIM_ENTRY(NAME, MAX_THREADS)                                                                     \
    SHIM_EXPORT const char* shim_signature_##NAME() { return ::shim::signature(&NAME); }                  \
    SHIM_EXPORT unsigned shim_max_threads_##NAME() { return MAX_THREADS; }                                \
    SHIM_EXPORT int shim_launch_##NAME(const ::shim::Launch* how, void** arguments, char* fault,          \
                                       std::size_t fault_bytes) {                                         \
        return ::shim::launch(&NAME, how, arguments, fault, fault_bytes);                                 \
    }
