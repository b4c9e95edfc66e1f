// The ladder: rolling features over windows of 2^k frames. gpuscalp/ops/ladder.py is the definition,
// gpuscalp/ops/cuda_ladder.py the launcher; what to compute is data (ladder_codes.Program).
//
// step           one frame of all symbols: one thread per (symbol, group), its element in registers
// advance_clock  ends a step: apart, because every block of it reads the clock; in memory, so that a captured
//                graph of both can be replayed
// batch_…        many frames of all symbols, an entry point for each family: one block per (symbol, tile of frames,
//                group); its threads walk along the tile together, each with the elements of a few frames in
//                registers; what a level looks back at lies in shared memory
//
// step, batch_… and the CPU's rows do the same operations on an element, in the same order. The functions below bear
// the names of those in ladder_families.py (lift, merge) and ladder_finish.py (finish).

#ifndef STEP_THREADS
#define STEP_THREADS 64
#endif
#ifndef BATCH_THREADS
#define BATCH_THREADS 128
#endif

// ---- codes and layouts: ladder_codes.py ---------------------------------------------------------------

enum Op { MOMENTS, EXTREMES, SUMS, CROSS, PATH, DECAY, SPECTRUM };
enum Stat {
    MEAN,
    STD,
    ZSCORE,
    MIN,
    MAX,
    FLOW_IMBALANCE,
    RSI,
    ILLIQUIDITY,
    TOXICITY,
    VWAP_DEVIATION,
    VOLATILITY,
    BETA,
    CORRELATION,
    ROLL_MEASURE,
    MOVE,
    LAST,
    RANGE_POSITION,
    RANGE_WIDTH,
    SLOPE,
    RESIDUAL_STD,
    PATH_ZSCORE,
    DECAYED_MEAN,
    DECAYED_DIFFERENCE,
    AMPLITUDE,
    BAND_SHARE,
    CENTROID,
    PARTICIPATION,
    DOMINANT_FREQUENCY,
    DOMINANT_SHARE,
    PHASE_COS,
    PHASE_SIN
};
#define UNKNOWN ((Stat) - 1)
// schema.Channel: what SUMS reads
enum Channel {
    RETURN_BPS = 2,
    BUY_KUSDT = 4,
    SELL_KUSDT = 5,
    VWAP_FLOW = 6,
    VARIANCE_BPS2 = 11,
    FLOW_KUSDT = 18
};

#define LEVELS 13
// Registers for the bins of a spectrum, of which SPECTRUM_BINS are used.
#define MAX_BINS 12
#define SPECTRUM_BINS 10
#define MAX_SPANS 8
#define GROUP_FIELDS 9
#define FINISH_FIELDS 5

// A row of Program.groups.
struct Group {
    int op, x, y, size, top, constants, finish, finish_count;
    long long ring;
};

// A row of Program.finishes.
struct Finish {
    int level, stat, column, a, b;
};

__device__ __forceinline__ Group read_group(const long long* __restrict__ groups, long long index) {
    const long long* row = groups + index * GROUP_FIELDS;
    return {(int)row[0], (int)row[1], (int)row[2], (int)row[3], (int)row[4],
            (int)row[5], (int)row[6], (int)row[7], row[8]};
}

__device__ __forceinline__ Finish read_finish(const long long* __restrict__ finishes, long long index) {
    const long long* row = finishes + index * FINISH_FIELDS;
    return {(int)row[0], (int)row[1], (int)row[2], (int)row[3], (int)row[4]};
}

__device__ __forceinline__ float nan32() { return __int_as_float(0x7fffffff); }

// A column of a matrix of float32: element `row` of one frame or of one symbol.
struct Rows {
    float* at;
    long long stride;
    __device__ __forceinline__ float& operator[](int row) const { return at[row * stride]; }
};
struct ConstRows {
    const float* at;
    long long stride;
    __device__ __forceinline__ float operator[](int row) const { return at[row * stride]; }
};

// ---- scalar steps of merge: ladder_families.py ----------------------------------------------------------

// Chan, Golub, LeVeque (1979), eq. 1.5 for equal halves.
__device__ __forceinline__ void merge_moments(float a_mean, float a_m2, float b_mean, float b_m2, float& mean,
                                              float& m2, int half_count) {
    const float weight = (float)half_count * 0.5f;
    const float d = b_mean - a_mean;
    mean = (a_mean + b_mean) * 0.5f;
    m2 = (a_m2 + b_m2) + (d * d) * weight;
}

__device__ __forceinline__ float merge_min(float x, float y) {
    const float low = x < y ? x : y;  // y when either is NaN
    return x != x ? x : low;
}

__device__ __forceinline__ float merge_max(float x, float y) {
    const float high = x > y ? x : y;
    return x != x ? x : high;
}

__device__ __forceinline__ float merge_co_moment(float a_x, float a_y, float a_c, float b_x, float b_y, float b_c,
                                                 int half_count) {
    const float weight = (float)half_count * 0.5f;
    return (a_c + b_c) + ((b_x - a_x) * (b_y - a_y)) * weight;
}

// ---- scalar steps of finish: ladder_finish.py -----------------------------------------------------------

__device__ __forceinline__ float ratio(float x, float y, float scale) {
    const float quotient = (x * scale) / y;
    return y > 0.0f ? quotient : nan32();
}

__device__ __forceinline__ float scaled_root(float x, float divisor) { return sqrtf(x / divisor); }

// Missing where the variance is not above the floor.
__device__ __forceinline__ float zscore(float offset, float m2, float divisor, float floor) {
    const float variance = m2 / divisor;
    const float z = offset / sqrtf(variance);
    return variance > floor ? z : nan32();
}

__device__ __forceinline__ float correlation(float x, float y, float c) {
    const float scale = sqrtf(x) * sqrtf(y);
    const float r = c / scale;
    return scale > 0.0f ? r : nan32();
}

// Roll (1984): the square of the spread is minus four times the autocovariance.
__device__ __forceinline__ float roll_measure(float c, float divisor) { return -4.0f * c / divisor; }

__device__ __forceinline__ float range_position(float low, float high) {
    const float width = high - low;
    const float position = -low / width;
    return width > 0.0f ? position : nan32();
}

__device__ __forceinline__ float residual_std(float m2, float time, float time_m2, float divisor) {
    const float left = m2 - time * time / time_m2;
    return sqrtf((left < 0.0f ? 0.0f : left) / divisor);
}

// Sum of squared deviations of 0 … n-1 from their mean.
__device__ __forceinline__ float time_m2_of(int frames) {
    return (float)((double)frames * ((double)frames * (double)frames - 1.0) / 12.0);
}

// ---- families -------------------------------------------------------------------------------------------
// N registers hold an element; `row` is the row of memory that register i stands for (-1: none in this group).
// INPUTS channels are read for a frame, which `lift` makes an element of, and which `finish` may ask for.
// `Work` is what the statistics of one window share. A statistic that a family does not know is NaN.
//
// For `batch_…`: a thread has FRAMES frames at a time, so that what is found out once for all of them (levels, tables,
// addresses) costs that much less of each; more would take registers and shared memory from other blocks. An element
// has WORDS floats in shared memory, moved 4 at a time if 4 divides it, else 2, and such that the threads of a warp do
// not meet in a bank; `word` is where register i is among them (-1: nowhere). Known are the cases of `finish`.

template <Stat... STATS>
struct Statistics {};

struct NoWork {
    NoWork() = default;
    template <int N>
    __device__ __forceinline__ NoWork(const Group&, const float (&)[N]) {}
};

struct Moments {
    static constexpr int N = 2;  // mean, M2
    static constexpr int INPUTS = 1;
    static constexpr int FRAMES = 4;
    static constexpr int WORDS = 2;
    using Known = Statistics<LAST, MEAN, STD, ZSCORE>;
    using Work = NoWork;
    static __device__ __forceinline__ int row(const Group&, int i) { return i; }
    static __device__ constexpr int word(int i) { return i; }
    static __device__ __forceinline__ void read(const Group& group, const ConstRows& channels, float (&x)[INPUTS]) {
        x[0] = channels[group.x];
    }
    static __device__ __forceinline__ void lift(const float (&x)[INPUTS], float (&e)[N]) {
        e[0] = x[0];
        e[1] = 0.0f;
    }
    static __device__ __forceinline__ void merge(const Group&, const float*, int level, const float (&a)[N],
                                                 const float (&b)[N], float (&out)[N]) {
        merge_moments(a[0], a[1], b[0], b[1], out[0], out[1], 1 << (level - 1));
    }
    static __device__ __forceinline__ float finish(const float*, const Group&, const Finish& row,
                                                   const float (&e)[N], const Work&, const float (&x)[INPUTS]) {
        const float less_one = (float)((1 << row.level) - 1);
        switch (row.stat) {
            case LAST:
            case MEAN: return e[0];
            case STD: return scaled_root(e[1], less_one);
            case ZSCORE: return zscore(x[0] - e[0], e[1], less_one, e[0] * e[0] * (1.0f / 1024.0f));
            default: return nan32();
        }
    }
};

struct Extremes {
    static constexpr int N = 2;  // min, max
    static constexpr int INPUTS = 1;
    static constexpr int FRAMES = 4;
    static constexpr int WORDS = 2;
    using Known = Statistics<LAST, MIN, MAX>;
    using Work = NoWork;
    static __device__ __forceinline__ int row(const Group&, int i) { return i; }
    static __device__ constexpr int word(int i) { return i; }
    static __device__ __forceinline__ void read(const Group& group, const ConstRows& channels, float (&x)[INPUTS]) {
        x[0] = channels[group.x];
    }
    static __device__ __forceinline__ void lift(const float (&x)[INPUTS], float (&e)[N]) {
        e[0] = x[0];
        e[1] = x[0];
    }
    static __device__ __forceinline__ void merge(const Group&, const float*, int, const float (&a)[N],
                                                 const float (&b)[N], float (&out)[N]) {
        out[0] = merge_min(a[0], b[0]);
        out[1] = merge_max(a[1], b[1]);
    }
    static __device__ __forceinline__ float finish(const float*, const Group&, const Finish& row,
                                                   const float (&e)[N], const Work&, const float (&)[INPUTS]) {
        switch (row.stat) {
            case LAST:
            case MIN: return e[0];
            case MAX: return e[1];
            default: return nan32();
        }
    }
};

struct Sums {
    static constexpr int N = 8;  // gains, losses, |return|, notional, flow, |flow|, VWAP flow, variance
    static constexpr int INPUTS = 6;
    static constexpr int FRAMES = 2;
    static constexpr int WORDS = 10;
    using Known = Statistics<FLOW_IMBALANCE, RSI, ILLIQUIDITY, TOXICITY, VWAP_DEVIATION, VOLATILITY>;
    using Work = NoWork;
    static __device__ __forceinline__ int row(const Group&, int i) { return i; }
    static __device__ constexpr int word(int i) { return i; }
    static __device__ __forceinline__ void read(const Group&, const ConstRows& channels, float (&x)[INPUTS]) {
        x[0] = channels[RETURN_BPS];
        x[1] = channels[BUY_KUSDT];
        x[2] = channels[SELL_KUSDT];
        x[3] = channels[FLOW_KUSDT];
        x[4] = channels[VWAP_FLOW];
        x[5] = channels[VARIANCE_BPS2];
    }
    static __device__ __forceinline__ void lift(const float (&x)[INPUTS], float (&e)[N]) {
        const float r = x[0];
        const float flow = x[3];
        const float size = fabsf(r);
        e[0] = (size + r) * 0.5f;
        e[1] = (size - r) * 0.5f;
        e[2] = size;
        e[3] = x[1] + x[2];
        e[4] = flow;
        e[5] = fabsf(flow);
        e[6] = x[4];
        e[7] = x[5];
    }
    static __device__ __forceinline__ void merge(const Group&, const float*, int, const float (&a)[N],
                                                 const float (&b)[N], float (&out)[N]) {
#pragma unroll
        for (int i = 0; i < N; ++i) out[i] = a[i] + b[i];
    }
    static __device__ __forceinline__ float finish(const float*, const Group&, const Finish& row,
                                                   const float (&e)[N], const Work&, const float (&)[INPUTS]) {
        switch (row.stat) {
            case FLOW_IMBALANCE: return ratio(e[4], e[3], 1.0f);
            case RSI: return ratio(e[0], e[2], 100.0f);
            case ILLIQUIDITY: return ratio(e[2], e[3], 1.0f);
            case TOXICITY: return ratio(e[5], e[3], 1.0f);
            case VWAP_DEVIATION: return ratio(e[6], e[3], 1.0f);
            case VOLATILITY: return scaled_root(e[7], 1.0f);
            default: return nan32();
        }
    }
};

struct Cross {
    static constexpr int N = 5;  // mean x, mean y, M2 x, M2 y, co-moment
    static constexpr int INPUTS = 2;
    static constexpr int FRAMES = 4;
    static constexpr int WORDS = 6;
    using Known = Statistics<BETA, CORRELATION, ROLL_MEASURE>;
    using Work = NoWork;
    static __device__ __forceinline__ int row(const Group&, int i) { return i; }
    static __device__ constexpr int word(int i) { return i; }
    static __device__ __forceinline__ void read(const Group& group, const ConstRows& channels, float (&x)[INPUTS]) {
        x[0] = channels[group.x];
        x[1] = channels[group.y];
    }
    static __device__ __forceinline__ void lift(const float (&x)[INPUTS], float (&e)[N]) {
        e[0] = x[0];
        e[1] = x[1];
        e[2] = 0.0f;
        e[3] = 0.0f;
        e[4] = 0.0f;
    }
    static __device__ __forceinline__ void merge(const Group&, const float*, int level, const float (&a)[N],
                                                 const float (&b)[N], float (&out)[N]) {
        const int half_count = 1 << (level - 1);
        out[4] = merge_co_moment(a[0], a[1], a[4], b[0], b[1], b[4], half_count);
        merge_moments(a[0], a[2], b[0], b[2], out[0], out[2], half_count);
        merge_moments(a[1], a[3], b[1], b[3], out[1], out[3], half_count);
    }
    static __device__ __forceinline__ float finish(const float*, const Group&, const Finish& row,
                                                   const float (&e)[N], const Work&, const float (&)[INPUTS]) {
        switch (row.stat) {
            case BETA: return ratio(e[4], e[3], 1.0f);
            case CORRELATION: return correlation(e[2], e[3], e[4]);
            case ROLL_MEASURE: return roll_measure(e[4], (float)((1 << row.level) - 1));
            default: return nan32();
        }
    }
};

struct Path {
    static constexpr int N = 6;  // of the price relative to the newest: move, mean, M2, min, max, co-moment with time
    static constexpr int INPUTS = 1;
    static constexpr int FRAMES = 4;
    static constexpr int WORDS = 6;
    using Known = Statistics<MOVE, PATH_ZSCORE, RANGE_POSITION, RANGE_WIDTH, SLOPE, RESIDUAL_STD>;
    using Work = NoWork;
    static __device__ __forceinline__ int row(const Group&, int i) { return i; }
    static __device__ constexpr int word(int i) { return i; }
    static __device__ __forceinline__ void read(const Group& group, const ConstRows& channels, float (&x)[INPUTS]) {
        x[0] = channels[group.x];
    }
    static __device__ __forceinline__ void lift(const float (&x)[INPUTS], float (&e)[N]) {
        e[0] = x[0];
        // Zero where the return is known, else NaN: an offset from an unknown price is unknown.
#pragma unroll
        for (int i = 1; i < N; ++i) e[i] = e[0] - e[0];
    }
    // Shifts the older half so that both are relative to the newest frame.
    static __device__ __forceinline__ void merge(const Group&, const float*, int level, const float (&a)[N],
                                                 const float (&b)[N], float (&out)[N]) {
        const float half_count = (float)(1 << (level - 1));
        const float weight = half_count * 0.5f;
        // Sum of time differences between the halves: n_a n_b / n · h = h² / 2.
        const float time_weight = half_count * half_count * 0.5f;
        const float shift = b[0];
        const float older = a[1] - shift;
        const float d = b[1] - older;
        out[0] = a[0] + shift;
        out[1] = (older + b[1]) * 0.5f;
        out[2] = (a[2] + b[2]) + (d * d) * weight;
        out[3] = merge_min(a[3] - shift, b[3]);
        out[4] = merge_max(a[4] - shift, b[4]);
        out[5] = (a[5] + b[5]) + d * time_weight;
    }
    static __device__ __forceinline__ float finish(const float*, const Group&, const Finish& row,
                                                   const float (&e)[N], const Work&, const float (&)[INPUTS]) {
        const int frames = 1 << row.level;
        switch (row.stat) {
            case MOVE: return e[0];
            case PATH_ZSCORE: return zscore(-e[1], e[2], (float)(frames - 1), 0.0f);
            case RANGE_POSITION: return range_position(e[3], e[4]);
            case RANGE_WIDTH: return e[4] - e[3];
            case SLOPE: return e[5] / time_m2_of(frames);
            case RESIDUAL_STD: return residual_std(e[2], e[5], time_m2_of(frames), (float)(frames - 2));
            default: return nan32();
        }
    }
};

template <int SPANS>
struct Decay {
    static constexpr int N = SPANS;  // sum of lambda^age x, one element per lambda
    static constexpr int INPUTS = 1;
    static constexpr int FRAMES = SPANS <= 4 ? 4 : 2;
    static constexpr int WORDS = SPANS <= 4 ? 4 : 10;
    using Known = Statistics<DECAYED_MEAN, DECAYED_DIFFERENCE>;
    using Work = NoWork;
    static __device__ __forceinline__ int row(const Group& group, int i) { return i < group.size ? i : -1; }
    static __device__ constexpr int word(int i) { return i; }
    static __device__ __forceinline__ void read(const Group& group, const ConstRows& channels, float (&x)[INPUTS]) {
        x[0] = channels[group.x];
    }
    static __device__ __forceinline__ void lift(const float (&x)[INPUTS], float (&e)[N]) {
#pragma unroll
        for (int i = 0; i < N; ++i) e[i] = x[0];
    }
    static __device__ __forceinline__ void merge(const Group& group, const float* constants, int level,
                                                 const float (&a)[N], const float (&b)[N], float (&out)[N]) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const float decay = i < group.size ? constants[group.constants + i * LEVELS + level] : 0.0f;
            out[i] = a[i] * decay + b[i];
        }
    }
    // Element i, chosen without an index: an indexed array would lie in memory.
    static __device__ __forceinline__ float pick(const float (&e)[N], int i) {
        float found = e[0];
#pragma unroll
        for (int k = 1; k < N; ++k) found = k == i ? e[k] : found;
        return found;
    }
    static __device__ __forceinline__ float finish(const float* constants, const Group& group, const Finish& row,
                                                   const float (&e)[N], const Work&, const float (&)[INPUTS]) {
        const float* norms = constants + group.constants + group.size * LEVELS + row.level;
        switch (row.stat) {
            case DECAYED_MEAN: return pick(e, row.a) * norms[row.a * LEVELS];
            case DECAYED_DIFFERENCE:
                return pick(e, row.a) * norms[row.a * LEVELS] - pick(e, row.b) * norms[row.b * LEVELS];
            default: return nan32();
        }
    }
};

struct Spectrum {
    static constexpr int N = 2 * MAX_BINS;  // real parts, then imaginary parts from MAX_BINS on
    static constexpr int INPUTS = 1;
    static constexpr int FRAMES = 2;
    static constexpr int WORDS = 2 * SPECTRUM_BINS;
    using Known = Statistics<AMPLITUDE, BAND_SHARE, CENTROID, PARTICIPATION, DOMINANT_FREQUENCY, DOMINANT_SHARE, PHASE_COS,
                             PHASE_SIN>;

    // Hann-windowed power of bins 1 to K-2, in power[k - 1]; their sum; the largest, its bin and its amplitude;
    // the sum again where float32 resolves its parts, else 0.
    struct Work {
        float power[MAX_BINS - 2];
        float total, best, best_bin, best_re, best_im, resolved;

        Work() = default;
        __device__ __forceinline__ Work(const Group& group, const float (&e)[N])
            : total(0.0f), best(0.0f), best_bin(0.0f), best_re(0.0f), best_im(0.0f), resolved(0.0f) {
            float plain = 0.0f;
            const int bins = group.size / 2;
#pragma unroll
            for (int k = 1; k < MAX_BINS - 1; ++k) {
                power[k - 1] = 0.0f;
                if (k >= bins - 1) continue;
                const float x = 0.5f * e[k] - 0.25f * (e[k - 1] + e[k + 1]);
                const float y =
                    0.5f * e[MAX_BINS + k] - 0.25f * (e[MAX_BINS + k - 1] + e[MAX_BINS + k + 1]);
                const float p = x * x + y * y;
                power[k - 1] = p;
                total = total + p;
                plain = plain + (e[k] * e[k] + e[MAX_BINS + k] * e[MAX_BINS + k]);
                const bool wins = p > best * 1.0001f;
                best = wins ? p : best;
                best_bin = wins ? (float)k : best_bin;
                best_re = wins ? x : best_re;
                best_im = wins ? y : best_im;
            }
            resolved = total > plain * 1e-2f ? total : 0.0f;
        }
    };

    static __device__ __forceinline__ int row(const Group& group, int i) {
        const int bins = group.size / 2;
        if (i < MAX_BINS) return i < bins ? i : -1;
        return i - MAX_BINS < bins ? bins + i - MAX_BINS : -1;
    }
    static __device__ constexpr int word(int i) {
        if (i < MAX_BINS) return i < SPECTRUM_BINS ? i : -1;
        return i - MAX_BINS < SPECTRUM_BINS ? SPECTRUM_BINS + i - MAX_BINS : -1;
    }
    static __device__ __forceinline__ void read(const Group& group, const ConstRows& channels, float (&x)[INPUTS]) {
        x[0] = channels[group.x];
    }
    static __device__ __forceinline__ void lift(const float (&x)[INPUTS], float (&e)[N]) {
#pragma unroll
        for (int k = 0; k < MAX_BINS; ++k) {
            e[k] = x[0];
            e[MAX_BINS + k] = 0.0f;
        }
    }
    // A + e^{-i w h} B, with cos and sin of w h from the table.
    static __device__ __forceinline__ void merge(const Group& group, const float* constants, int level,
                                                 const float (&a)[N], const float (&b)[N], float (&out)[N]) {
        const int bins = group.size / 2;
        const float* twiddles = constants + group.constants + level * bins * 2;
#pragma unroll
        for (int k = 0; k < MAX_BINS; ++k) {
            const float cosine = k < bins ? twiddles[2 * k] : 0.0f;
            const float sine = k < bins ? twiddles[2 * k + 1] : 0.0f;
            const float x = b[k];
            const float y = b[MAX_BINS + k];
            out[k] = a[k] + (cosine * x + sine * y);
            out[MAX_BINS + k] = a[MAX_BINS + k] + (cosine * y - sine * x);
        }
    }
    static __device__ __forceinline__ float finish(const float*, const Group& group, const Finish& row,
                                                   const float (&)[N], const Work& work, const float (&)[INPUTS]) {
        const int bins = group.size / 2;
        const float window = (float)(1 << row.level);
        switch (row.stat) {
            case AMPLITUDE: return sqrtf(work.total) / window;
            case BAND_SHARE: return band_share(work, row.a, row.b);
            case CENTROID: return centroid(work, bins, window);
            case PARTICIPATION: return participation(work, bins);
            case DOMINANT_FREQUENCY: return defined(work.best_bin / window, work.resolved);
            case DOMINANT_SHARE: return ratio(work.best, work.resolved, 1.0f);
            case PHASE_COS: return defined(work.best_re / sqrtf(work.best), work.resolved);
            case PHASE_SIN: return defined(work.best_im / sqrtf(work.best), work.resolved);
            default: return nan32();
        }
    }
    static __device__ __forceinline__ float defined(float quotient, float denominator) {
        return denominator > 0.0f ? quotient : nan32();
    }
    // Bins a to b - 1. What is outside is added as 0: that changes no sum of powers, as none is below 0; and where the
    // band is the same for many frames, a mask costs them one instruction for each bin.
    static __device__ __forceinline__ float band_share(const Work& work, int a, int b) {
        const unsigned band = (1u << b) - (1u << a);
        float sum = 0.0f;
#pragma unroll
        for (int k = 1; k < MAX_BINS - 1; ++k) {
            const int inside = (int)(band << (31 - k)) >> 31;  // all bits or none
            sum = sum + __int_as_float(__float_as_int(work.power[k - 1]) & inside);
        }
        return defined(sum / work.resolved, work.resolved);
    }
    static __device__ __forceinline__ float centroid(const Work& work, int bins, float window) {
        float sum = 0.0f;
#pragma unroll
        for (int k = 1; k < MAX_BINS - 1; ++k) {
            if (k < bins - 1) sum = sum + work.power[k - 1] * (float)k;
        }
        return defined(sum / work.resolved / window, work.resolved);
    }
    static __device__ __forceinline__ float participation(const Work& work, int bins) {
        float sum = 0.0f;
#pragma unroll
        for (int k = 1; k < MAX_BINS - 1; ++k) {
            if (k >= bins - 1) continue;
            const float share = work.power[k - 1] / work.resolved;
            sum = sum + share * share;
        }
        return defined(1.0f / sum, work.resolved);
    }
};

template <class Family, class From>
__device__ __forceinline__ void load(const Group& group, const From& from, float (&e)[Family::N]) {
#pragma unroll
    for (int i = 0; i < Family::N; ++i) {
        const int row = Family::row(group, i);
        e[i] = row >= 0 ? from[row] : 0.0f;
    }
}

template <class Family>
__device__ __forceinline__ void store(const Group& group, const float (&e)[Family::N], const Rows& to) {
#pragma unroll
    for (int i = 0; i < Family::N; ++i) {
        const int row = Family::row(group, i);
        if (row >= 0) to[row] = e[i];
    }
}

// Where the finishes of one group stand: they are ordered by level.
struct Cursor {
    long long at, past;
};

// The cursor behind the finishes of `level`.
__device__ __forceinline__ long long past_level(const long long* finishes, const Cursor& cursor, int level) {
    long long at = cursor.at;
    while (at < cursor.past && read_finish(finishes, at).level == level) ++at;
    return at;
}

template <class Family>
__device__ __forceinline__ void finish_level(const float* constants, const long long* finishes,
                                             const Group& group, long long at, long long past,
                                             const float (&e)[Family::N], const float (&x)[Family::INPUTS],
                                             const Rows& out) {
    const typename Family::Work work(group, e);
    for (; at < past; ++at) {
        const Finish row = read_finish(finishes, at);
        out[row.column] = Family::finish(constants, group, row, e, work, x);
    }
}

// ---- step -----------------------------------------------------------------------------------------------

// Row `now` of the ring of `level`, whose element is half a window older than the newest.
__device__ __forceinline__ Rows ring_slot(const Group& group, float* rings, long long ring, int level,
                                          long long now, long long symbol_count) {
    const long long half = 1LL << (level - 1);
    return {rings + (ring + (now & (half - 1)) * group.size) * symbol_count, symbol_count};
}

// The older half of the next level is fetched before the finishes of this one: it does not depend on them, and
// otherwise each of up to ten levels would wait for memory in turn.
template <class Family>
__device__ __forceinline__ void step_group(const float* constants, const long long* finishes, const Group& group,
                                           const ConstRows& channels, float* rings, long long now,
                                           const Rows& out) {
    const long long symbol_count = out.stride;
    float x[Family::INPUTS];
    Family::read(group, channels, x);
    float e[Family::N];
    Family::lift(x, e);
    Cursor cursor = {group.finish, group.finish + group.finish_count};
    long long ring = group.ring;
    float older[Family::N] = {};
    if (group.top > 0) load<Family>(group, ring_slot(group, rings, ring, 1, now, symbol_count), older);
    for (int level = 0; level <= group.top; ++level) {
        if (level > 0) {
            const Rows slot = ring_slot(group, rings, ring, level, now, symbol_count);
            ring += (1LL << (level - 1)) * group.size;
            float merged[Family::N];
            Family::merge(group, constants, level, older, e, merged);
            store<Family>(group, e, slot);
#pragma unroll
            for (int i = 0; i < Family::N; ++i) e[i] = merged[i];
            if (level < group.top) {
                load<Family>(group, ring_slot(group, rings, ring, level + 1, now, symbol_count), older);
            }
        }
        const long long past = past_level(finishes, cursor, level);
        if (past > cursor.at) {
            finish_level<Family>(constants, finishes, group, cursor.at, past, e, x, out);
            cursor.at = past;
        }
    }
}

// channels float32[C, S] of the newest frame; rings float32[R, S]; clock int64[1]; out float32[F, S].
// Grid: (ceil(S / STEP_THREADS), groups). Groups cost from one load to a spectrum of eight levels; a step takes as
// long as its slowest group, if all of them run at once and none shares what it waits for. Blocks of two warps: 512
// symbols and 28 groups are 224 blocks, at most two on each of 132 multiprocessors, so that every warp has a
// scheduler to itself; fewer symbols spread over as many multiprocessors as there are blocks. The 1 below lets the
// compiler take registers rather than spill.
extern "C" __global__ void __launch_bounds__(STEP_THREADS, 1)
    step(const long long* __restrict__ groups, const long long* __restrict__ finishes,
         const float* __restrict__ constants, const float* __restrict__ channels, float* __restrict__ rings,
         const long long* __restrict__ clock, float* __restrict__ out, long long symbol_count) {
    const long long symbol = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (symbol >= symbol_count) return;
    const Group group = read_group(groups, blockIdx.y);
    const ConstRows own = {channels + symbol, symbol_count};
    const Rows to = {out + symbol, symbol_count};
    float* ring = rings + symbol;
    const long long now = clock[0];
    switch (group.op) {
        case MOMENTS: step_group<Moments>(constants, finishes, group, own, ring, now, to); break;
        case EXTREMES: step_group<Extremes>(constants, finishes, group, own, ring, now, to); break;
        case SUMS: step_group<Sums>(constants, finishes, group, own, ring, now, to); break;
        case CROSS: step_group<Cross>(constants, finishes, group, own, ring, now, to); break;
        case PATH: step_group<Path>(constants, finishes, group, own, ring, now, to); break;
        case DECAY: step_group<Decay<MAX_SPANS>>(constants, finishes, group, own, ring, now, to); break;
        case SPECTRUM: step_group<Spectrum>(constants, finishes, group, own, ring, now, to); break;
    }
}

extern "C" __global__ void advance_clock(long long* clock) { clock[0] += 1; }

// ---- batch ----------------------------------------------------------------------------------------------

// An element from its words in shared memory.
template <class Family>
__device__ __forceinline__ void take_words(const float* at, float (&e)[Family::N]) {
    float words[Family::WORDS] = {};
    if (Family::WORDS % 4 == 0) {
#pragma unroll
        for (int i = 0; i + 3 < Family::WORDS; i += 4) {
            const float4 four = *(const float4*)(at + i);
            words[i] = four.x;
            words[i + 1] = four.y;
            words[i + 2] = four.z;
            words[i + 3] = four.w;
        }
    } else {
#pragma unroll
        for (int i = 0; i < Family::N; i += 2) {
            const float2 two = *(const float2*)(at + i);
            words[i] = two.x;
            words[i + 1] = two.y;
        }
    }
#pragma unroll
    for (int i = 0; i < Family::N; ++i) e[i] = Family::word(i) >= 0 ? words[Family::word(i)] : 0.0f;
}

template <class Family>
__device__ __forceinline__ void put_words(const float (&e)[Family::N], float* at) {
    float words[Family::WORDS] = {};
#pragma unroll
    for (int i = 0; i < Family::N; ++i) {
        if (Family::word(i) >= 0) words[Family::word(i)] = e[i];
    }
    if (Family::WORDS % 4 == 0) {
#pragma unroll
        for (int i = 0; i + 3 < Family::WORDS; i += 4) {
            *(float4*)(at + i) = make_float4(words[i], words[i + 1], words[i + 2], words[i + 3]);
        }
    } else {
#pragma unroll
        for (int i = 0; i < Family::N; i += 2) *(float2*)(at + i) = make_float2(words[i], words[i + 1]);
    }
}

// The frames that a thread has in one step: number j is `first` + j * BATCH_THREADS. They count from the first frame of
// the tile, where the rows of channels and `out` begin; of `out` those from 0 up to `count` are written.
struct Frames {
    int first, count;
    ConstRows channels;
    Rows out;
    __device__ __forceinline__ int operator[](int j) const { return first + j * BATCH_THREADS; }
    __device__ __forceinline__ ConstRows newest(int j) const { return {channels.at + (*this)[j], channels.stride}; }
};

// What the elements of a thread's frames come of; nothing for those that no window of the tile reaches.
template <class Family>
__device__ __forceinline__ void read_frames(const Group& group, const Frames& frames, int reach,
                                            float (&x)[Family::FRAMES][Family::INPUTS]) {
#pragma unroll
    for (int j = 0; j < Family::FRAMES; ++j) {
#pragma unroll
        for (int i = 0; i < Family::INPUTS; ++i) x[j][i] = 0.0f;
        if (frames[j] >= -reach && frames[j] < frames.count) Family::read(group, frames.newest(j), x[j]);
    }
}

// One statistic of all frames of a thread. `stat` is a constant where this is inlined: it is chosen once, not by frame.
template <class Family>
__device__ __forceinline__ void finish_frames(const float* constants, const Group& group, Finish row, Stat stat,
                                              const float (&e)[Family::FRAMES][Family::N],
                                              const typename Family::Work (&work)[Family::FRAMES],
                                              const float (&x)[Family::FRAMES][Family::INPUTS],
                                              const Frames& frames) {
    row.stat = stat;
    float* column = frames.out.at + row.column * frames.out.stride;
#pragma unroll
    for (int j = 0; j < Family::FRAMES; ++j) {
        const float value = Family::finish(constants, group, row, e[j], work[j], x[j]);
        if (frames[j] >= 0 && frames[j] < frames.count) column[frames[j]] = value;
    }
}

// The one of a family's statistics that a row asks for.
template <class Family, Stat... STATS>
__device__ __forceinline__ void finish_one_of(Statistics<STATS...>, const float* constants, const Group& group,
                                              const Finish& row, const float (&e)[Family::FRAMES][Family::N],
                                              const typename Family::Work (&work)[Family::FRAMES],
                                              const float (&x)[Family::FRAMES][Family::INPUTS],
                                              const Frames& frames) {
    const bool known =
        ((row.stat == STATS && (finish_frames<Family>(constants, group, row, STATS, e, work, x, frames), true)) || ...);
    if (!known) finish_frames<Family>(constants, group, row, UNKNOWN, e, work, x, frames);
}

// A row of Program.finishes as it lies in shared memory.
__device__ __forceinline__ int4 pack_finish(const Finish& row) {
    int4 packed;
    packed.x = row.level;
    packed.y = row.stat;
    packed.z = row.column;
    packed.w = row.a << 16 | row.b;
    return packed;
}
__device__ __forceinline__ Finish unpack_finish(const int4& packed) {
    return {packed.x, packed.y, packed.z, packed.w >> 16, packed.w & 0xffff};
}

// What finish_level does for one frame, for all frames of a thread; `row` is the first one of the level. Behind the
// last row of a group stands one of no level.
template <class Family>
__device__ __forceinline__ const int4* finish_level_of_frames(const float* constants, const int4* row,
                                                              const Group& group, int level,
                                                              const float (&e)[Family::FRAMES][Family::N],
                                                              const float (&x)[Family::FRAMES][Family::INPUTS],
                                                              const Frames& frames) {
    typename Family::Work work[Family::FRAMES];
#pragma unroll
    for (int j = 0; j < Family::FRAMES; ++j) work[j] = typename Family::Work(group, e[j]);
    Finish next = unpack_finish(*row);
    do {
        const Finish found = next;
        next = unpack_finish(*++row);
        finish_one_of<Family>(typename Family::Known{}, constants, group, found, e, work, x, frames);
    } while (next.level == level);
    return row;
}

// channels float32[S, C, H + T], out float32[S, F, T]; frames first to last, `tile` at a time; chosen: the groups
// of this launch. Grid: (S * ceil((last - first) / tile), number of chosen groups). Block: BATCH_THREADS.
// Dynamic shared memory: what cuda_ladder._shared_bytes says for the chosen group that needs most.
#define BATCH_PARAMETERS                                                                                              \
    const long long *__restrict__ groups, const int *__restrict__ chosen, const long long *__restrict__ finishes,     \
        const float *__restrict__ constants, const float *__restrict__ channels, long long channel_count,             \
        long long halo, long long first, long long last, long long tile, float *__restrict__ out,                     \
        long long column_count, long long frame_count
#define BATCH_ARGUMENTS                                                                                               \
    groups, chosen, finishes, constants, channels, channel_count, halo, first, last, tile, out, column_count,         \
        frame_count

// One group over one tile of one symbol; SIZE is the group's size where it is known when this is compiled: then nothing
// asks for each number whether it is there. The threads take FRAMES * BATCH_THREADS neighbouring frames at a time, a
// step, and go up the levels together. In the block's shared memory lie
//
//   the group's rows of Program.finishes, and one of no level; where SIZE is given, its numbers for each level too;
//   a step's elements, to hand them to later frames of the same step;
//   for each level, h = 2^(level - 1) elements, as many as frames to look back:
//     h >= BATCH_THREADS   a ring as in `step`. As both are powers of two, a slot belongs to one thread for good: it
//                          reads what it wrote h frames ago and writes its newest there, and there is nothing to wait
//                          for. Frames of one step that meet in a slot are the same thread's, and go in their order.
//     h < BATCH_THREADS    the last ones of the step before.
//
// Each level with h < BATCH_THREADS has two barriers: what was handed over is read between them, and so are the elements
// kept of the step before, which are then overwritten. Two of either, used in turn, would save one barrier; but with
// half the shared memory a multiprocessor has room for more blocks, and on an H100 that is worth more.
//
// The tile begins 2^top - 1 frames early, rounded up to whole steps, so that every window is filled; until
// then shared memory holds anything, and what comes of that is not written.
template <class Family, int SIZE = 0>
__device__ __forceinline__ void batch_group(BATCH_PARAMETERS) {
    extern __shared__ float4 shared[];
    constexpr int COUNT = Family::FRAMES;
    constexpr int WORDS = Family::WORDS;
    constexpr int STEP = COUNT * BATCH_THREADS;
    const int thread = threadIdx.x;
    const long long tiles = (last - first + tile - 1) / tile;
    const long long symbol = blockIdx.x / tiles;
    const long long start = first + blockIdx.x % tiles * tile;
    const long long stride = halo + frame_count;
    Group group = read_group(groups, chosen[blockIdx.y]);
    if (SIZE > 0) group.size = SIZE;
    int4* const rows = (int4*)shared;
    float* const table = (float*)(rows + group.finish_count + 1);
    float* const memory = table + (group.top + 1) * SIZE;
    for (int i = thread; i <= group.finish_count; i += BATCH_THREADS) {
        rows[i] = pack_finish(i < group.finish_count ? read_finish(finishes, group.finish + i) : Finish{-1, 0, 0, 0, 0});
    }
    if (SIZE > 0) {
        for (int i = thread; i < (group.top + 1) * SIZE; i += BATCH_THREADS) table[i] = constants[group.constants + i];
        group.constants = 0;
    }
    __syncthreads();
    const float* const numbers = SIZE > 0 ? table : constants;
    unsigned finishing = 0;  // a bit for each level that has rows
    for (int i = 0; i < group.finish_count; ++i) finishing |= 1u << rows[i].x;
    const int reach = (1 << group.top) - 1;
    const int lead = (reach + STEP - 1) / STEP * STEP;
    Frames frames = {thread - lead,
                     (int)(min(start + tile, last) - start),
                     {channels + symbol * channel_count * stride + halo + start, stride},
                     {out + symbol * column_count * frame_count + start, frame_count}};
    float* const handed = memory + thread * WORDS;
    float ahead[COUNT][Family::INPUTS];
    read_frames<Family>(group, frames, reach, ahead);
    for (int at = -lead; at < frames.count; at += STEP) {
        float x[COUNT][Family::INPUTS];
        float e[COUNT][Family::N];
#pragma unroll
        for (int j = 0; j < COUNT; ++j) {
#pragma unroll
            for (int i = 0; i < Family::INPUTS; ++i) x[j][i] = ahead[j][i];
            Family::lift(x[j], e[j]);
        }
        // Those of the next step are on their way while this one is computed.
        frames.first = at + STEP + thread;
        read_frames<Family>(group, frames, reach, ahead);
        frames.first = at + thread;
        const int4* row = rows;
        float* level_memory = memory + STEP * WORDS;
        for (int level = 0; level <= group.top; ++level) {
            if (level > 0) {
                const int half = 1 << (level - 1);
                float older[COUNT][Family::N];
                if (half >= BATCH_THREADS) {
#pragma unroll
                    for (int j = 0; j < COUNT; ++j) {
                        float* slot = level_memory + (frames[j] & (half - 1)) * WORDS;
                        take_words<Family>(slot, older[j]);
                        put_words<Family>(e[j], slot);
                    }
                } else {
#pragma unroll
                    for (int j = 0; j < COUNT; ++j) put_words<Family>(e[j], handed + j * BATCH_THREADS * WORDS);
                    __syncthreads();
                    const float* earlier = handed - half * WORDS;
                    take_words<Family>(thread >= half ? earlier : level_memory + thread * WORDS, older[0]);
#pragma unroll
                    for (int j = 1; j < COUNT; ++j) take_words<Family>(earlier + j * BATCH_THREADS * WORDS, older[j]);
                    __syncthreads();
                    const int late = thread - (BATCH_THREADS - half);
                    if (late >= 0) put_words<Family>(e[COUNT - 1], level_memory + late * WORDS);
                }
                level_memory += half * WORDS;
#pragma unroll
                for (int j = 0; j < COUNT; ++j) {
                    float merged[Family::N];
                    Family::merge(group, numbers, level, older[j], e[j], merged);
#pragma unroll
                    for (int i = 0; i < Family::N; ++i) e[j][i] = merged[i];
                }
            }
            if (at + STEP > 0 && (finishing >> level & 1)) {
                row = finish_level_of_frames<Family>(numbers, row, group, level, e, x, frames);
            }
        }
    }
}

// An entry point for each family: a block takes as many registers as the most demanding code of its kernel, and the
// more registers it takes the fewer blocks a multiprocessor has room for.
extern "C" __global__ void __launch_bounds__(BATCH_THREADS, 1) batch_moments(BATCH_PARAMETERS) {
    batch_group<Moments>(BATCH_ARGUMENTS);
}
extern "C" __global__ void __launch_bounds__(BATCH_THREADS, 1) batch_extremes(BATCH_PARAMETERS) {
    batch_group<Extremes>(BATCH_ARGUMENTS);
}
extern "C" __global__ void __launch_bounds__(BATCH_THREADS, 1) batch_sums(BATCH_PARAMETERS) {
    batch_group<Sums>(BATCH_ARGUMENTS);
}
extern "C" __global__ void __launch_bounds__(BATCH_THREADS, 1) batch_cross(BATCH_PARAMETERS) {
    batch_group<Cross>(BATCH_ARGUMENTS);
}
extern "C" __global__ void __launch_bounds__(BATCH_THREADS, 1) batch_path(BATCH_PARAMETERS) {
    batch_group<Path>(BATCH_ARGUMENTS);
}
extern "C" __global__ void __launch_bounds__(BATCH_THREADS, 1) batch_decay4(BATCH_PARAMETERS) {
    batch_group<Decay<4>>(BATCH_ARGUMENTS);
}
extern "C" __global__ void __launch_bounds__(BATCH_THREADS, 1) batch_decay8(BATCH_PARAMETERS) {
    batch_group<Decay<MAX_SPANS>>(BATCH_ARGUMENTS);
}
extern "C" __global__ void __launch_bounds__(BATCH_THREADS, 4) batch_spectrum(BATCH_PARAMETERS) {
    batch_group<Spectrum, 2 * SPECTRUM_BINS>(BATCH_ARGUMENTS);
}
