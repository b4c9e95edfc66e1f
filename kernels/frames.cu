// Ticks to frames: gpuscalp/ops/frames.py is the definition, gpuscalp/ops/cuda_frames.py the launcher.
//
// fold         one frame: one block of a warp per symbol. All threads bring the ticks into shared memory, the
//              first one folds them.
// last_ticks   many frames, first of three: for each cell (frame, symbol) its last quote, book and mark
// carry_ticks  second: for each cell those of the cells before it, that is, the state that it starts from
// fold_cells   third: one thread per cell
//
// The cells of a batch are independent once each knows where it starts, because a symbol's state holds nothing
// that is summed up from frame to frame: the quote, book and mark are the last ticks of their kinds, twice the
// mid of the last close is that quote's, the last return follows from the quotes at the last two closes, and
// the frames closed are counted from the last close without two sides. What lies before the first frame comes
// from the carried state. Inside a cell one thread adds in event order: every float64 sum has the CPU's order.

#ifndef FOLD_THREADS
#define FOLD_THREADS 32
#endif
#ifndef CELL_THREADS
#define CELL_THREADS 128
#endif
// A block of carry_ticks: symbols, which are neighbours in memory, and stretches of the frames.
#ifndef CARRY_SYMBOLS
#define CARRY_SYMBOLS 32
#endif
#ifndef CARRY_STRETCHES
#define CARRY_STRETCHES 32
#endif

// A row of TICK (gpuscalp/schema.py), which NumPy packs without padding; nor is there any here.
struct alignas(16) Tick {
    long long exch_ns;
    long long recv_ns;
    int px0;
    int px1;
    double q0;
    double q1;
    double q2;
    double q3;
    int symbol;
    unsigned char kind;
    signed char side;
    unsigned short quality;
};
static_assert(sizeof(Tick) == 64, "a tick is one cache line, on the host and on the device");

// schema.TickKind, schema.Quality, schema.Channel
enum Kind { TRADE = 0, QUOTE = 1, BOOK = 2, MARK = 3 };
enum Quality { GAP = 1 << 0, RESYNC = 1 << 1, STALE = 1 << 2, CROSSED = 1 << 3, WARM_UP = 1 << 6 };
enum Channel {
    MICROPRICE_BPS,
    SPREAD_BPS,
    RETURN_BPS,
    TRADE_COUNT,
    BUY_KUSDT,
    SELL_KUSDT,
    VWAP_FLOW,
    OFI_KUSDT,
    QUEUE_IMBALANCE,
    DEPTH5_IMBALANCE,
    DEPTH20_IMBALANCE,
    VARIANCE_BPS2,
    RANGE_BPS,
    QUOTE_COUNT,
    LARGEST_KUSDT,
    BASIS_BPS,
    AGE_MS,
    LAGGED_RETURN_BPS,
    FLOW_KUSDT,
    CHANNEL_COUNT
};

// One symbol's column of FrameState.
struct State {
    long long bid, ask, mid2, quote_ns, frames_closed, doubts;
    double bid_qty, ask_qty, bid5, ask5, bid20, ask20, mark, last_return;
};

// Rows of FrameState: their number, and those that carry_ticks reads.
#define STATE_INTEGERS 6
#define STATE_REALS 8
#define MID2 2
#define FRAMES_CLOSED 4

// What one frame adds up.
struct Sums {
    unsigned int flags;
    long long trade_count, quote_count, high2, low2;
    double buy, sell, vwap_flow, ofi, variance, largest;
};

// Twice the mid in ticks, or 0 where a side is missing.
__device__ __forceinline__ long long two_sided(long long bid, long long ask) {
    return bid > 0 && ask > 0 ? bid + ask : 0LL;
}

__device__ __forceinline__ double nan64() { return __longlong_as_double(0x7fffffffffffffffLL); }

// The return between two closes, or NaN where one of them had no mid.
__device__ __forceinline__ double return_bps(long long before2, long long after2) {
    return before2 > 0 && after2 > 0 ? (double)(after2 - before2) / (double)before2 * 10000.0 : nan64();
}

__device__ __forceinline__ void take_quote(const Tick& tick, State& state) {
    state.bid = tick.px0;
    state.ask = tick.px1;
    state.bid_qty = tick.q0;
    state.ask_qty = tick.q1;
    state.quote_ns = tick.exch_ns;
}

__device__ __forceinline__ void take_book(const Tick& tick, State& state) {
    state.bid5 = tick.q0;
    state.ask5 = tick.q1;
    state.bid20 = tick.q2;
    state.ask20 = tick.q3;
    state.doubts = tick.quality & (GAP | RESYNC);
}

__device__ __forceinline__ void on_trade(const Tick& tick, double tick_size, const State& state, Sums& sums) {
    const double notional = ((double)tick.px0 * tick_size) * tick.q0 / 1000.0;
    sums.trade_count += 1;
    if (tick.side > 0) {
        sums.buy += notional;
    } else {
        sums.sell += notional;
    }
    if (notional > sums.largest) sums.largest = notional;
    const long long mid2 = two_sided(state.bid, state.ask);
    if (mid2 > 0) {
        sums.vwap_flow += (double)(2LL * tick.px0 - mid2) / (double)mid2 * 10000.0 * notional;
    }
}

// OFI: Cont, Kukanov, Stoikov (2014), the sum of signed changes of the best queues.
__device__ __forceinline__ void on_quote(const Tick& tick, State& state, Sums& sums) {
    const long long bid = tick.px0;
    const long long ask = tick.px1;
    const long long mid2 = two_sided(bid, ask);
    const long long before = two_sided(state.bid, state.ask);
    sums.quote_count += 1;
    if (before > 0 && mid2 > 0) {
        if (bid >= state.bid) sums.ofi += tick.q0;
        if (bid <= state.bid) sums.ofi -= state.bid_qty;
        if (ask <= state.ask) sums.ofi -= tick.q1;
        if (ask >= state.ask) sums.ofi += state.ask_qty;
        const double move = (double)(mid2 - before) / (double)before * 10000.0;
        sums.variance += move * move;
    }
    if (mid2 > 0) {
        sums.high2 = max(sums.high2, mid2);
        sums.low2 = sums.low2 > 0 ? min(sums.low2, mid2) : mid2;
    }
    take_quote(tick, state);
}

// Scales the sums of a frame that ends with a quote into channels. Returns the quality word.
__device__ __forceinline__ unsigned int close_frame(const Sums& sums, long long end_ns, double tick_size,
                                                    long long stale_ns, long long warm_up_frames, State& state,
                                                    float* channels, long long stride) {
    const long long mid2 = state.bid + state.ask;
    const double mid = (double)mid2 * 0.5 * tick_size;
    const double imbalance = (state.bid_qty - state.ask_qty) / (state.bid_qty + state.ask_qty);
    const double moved = return_bps(state.mid2, mid2);
    const long long age_ns = end_ns - state.quote_ns;
    const long long frames_closed = state.frames_closed + 1;
    const long long spread = state.ask - state.bid;

    channels[MICROPRICE_BPS * stride] = (float)((double)spread * imbalance / (double)mid2 * 10000.0);
    channels[SPREAD_BPS * stride] = (float)((double)(2 * spread) / (double)mid2 * 10000.0);
    channels[RETURN_BPS * stride] = (float)moved;
    channels[TRADE_COUNT * stride] = (float)sums.trade_count;
    channels[BUY_KUSDT * stride] = (float)sums.buy;
    channels[SELL_KUSDT * stride] = (float)sums.sell;
    channels[VWAP_FLOW * stride] = (float)sums.vwap_flow;
    channels[OFI_KUSDT * stride] = (float)(sums.ofi * mid / 1000.0);
    channels[QUEUE_IMBALANCE * stride] = (float)imbalance;
    channels[DEPTH5_IMBALANCE * stride] = (float)((state.bid5 - state.ask5) / (state.bid5 + state.ask5));
    channels[DEPTH20_IMBALANCE * stride] = (float)((state.bid20 - state.ask20) / (state.bid20 + state.ask20));
    channels[VARIANCE_BPS2 * stride] = (float)sums.variance;
    channels[RANGE_BPS * stride] = (float)((double)(sums.high2 - sums.low2) / (double)mid2 * 10000.0);
    channels[QUOTE_COUNT * stride] = (float)sums.quote_count;
    channels[LARGEST_KUSDT * stride] = (float)sums.largest;
    channels[BASIS_BPS * stride] = (float)((mid - state.mark) / state.mark * 10000.0);
    channels[AGE_MS * stride] = (float)((double)age_ns / 1000000.0);
    channels[LAGGED_RETURN_BPS * stride] = (float)state.last_return;
    channels[FLOW_KUSDT * stride] = (float)(sums.buy - sums.sell);

    state.mid2 = mid2;
    state.frames_closed = frames_closed;
    state.last_return = moved;

    unsigned int flags = sums.flags;
    if (state.bid >= state.ask) flags |= CROSSED;
    if (age_ns > stale_ns) flags |= STALE;
    if (frames_closed < warm_up_frames) flags |= WARM_UP;
    return flags;
}

__device__ __forceinline__ State load_state(const long long* integers, const double* reals, long long stride) {
    return {integers[0],         integers[stride],  integers[2 * stride], integers[3 * stride],
            integers[4 * stride], integers[5 * stride], reals[0],          reals[stride],
            reals[2 * stride],   reals[3 * stride],    reals[4 * stride], reals[5 * stride],
            reals[6 * stride],   reals[7 * stride]};
}

__device__ __forceinline__ void store_state(const State& state, long long* integers, double* reals,
                                            long long stride) {
    integers[0] = state.bid;
    integers[stride] = state.ask;
    integers[2 * stride] = state.mid2;
    integers[3 * stride] = state.quote_ns;
    integers[4 * stride] = state.frames_closed;
    integers[5 * stride] = state.doubts;
    reals[0] = state.bid_qty;
    reals[stride] = state.ask_qty;
    reals[2 * stride] = state.bid5;
    reals[3 * stride] = state.ask5;
    reals[4 * stride] = state.bid20;
    reals[5 * stride] = state.ask20;
    reals[6 * stride] = state.mark;
    reals[7 * stride] = state.last_return;
}

__device__ __forceinline__ Sums open_frame(const State& state) {
    const long long mid2 = two_sided(state.bid, state.ask);
    return {(unsigned int)state.doubts, 0, 0, mid2, mid2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0};
}

__device__ __forceinline__ void on_tick(const Tick& tick, double tick_size, State& state, Sums& sums) {
    sums.flags |= tick.quality;
    if (tick.kind == TRADE) {
        on_trade(tick, tick_size, state, sums);
    } else if (tick.kind == QUOTE) {
        on_quote(tick, state, sums);
    } else if (tick.kind == BOOK) {
        take_book(tick, state);
    } else if (tick.kind == MARK) {
        state.mark = tick.q0;
    }
}

// Where the results of one cell go: channels of stride `stride`, the others one value each.
struct Cell {
    float* channels;
    unsigned int* quality;
    int* bid_px;
    int* ask_px;
    double* mark;
    long long stride;
};

__device__ __forceinline__ void close_cell(const Sums& sums, long long end_ns, double tick_size,
                                           long long stale_ns, long long warm_up_frames, State& state,
                                           const Cell& to) {
    *to.mark = state.mark;
    *to.bid_px = (int)state.bid;
    *to.ask_px = (int)state.ask;
    if (two_sided(state.bid, state.ask) == 0) {
        for (int channel = 0; channel < CHANNEL_COUNT; ++channel) {
            to.channels[channel * to.stride] = __int_as_float(0x7fffffff);
        }
        *to.quality = sums.flags | WARM_UP;
        state.mid2 = 0;
        state.frames_closed = 0;
        state.last_return = nan64();
    } else {
        *to.quality = close_frame(sums, end_ns, tick_size, stale_ns, warm_up_frames, state, to.channels, to.stride);
    }
}

// ---- one frame ------------------------------------------------------------------------------------------

#define TICK_WORDS (sizeof(Tick) / sizeof(uint4))

// ticks: rows of TICK as bytes, ordered by symbol, event order within; offsets int64[S + 1]; end_ns int64[1];
// tick_size float64[S]; integers int64[6, S] and reals float64[8, S] are FrameState; channels float32[C, S];
// quality uint32[S]; bid_px, ask_px int32[S]; mark float64[S]. Grid: S blocks of FOLD_THREADS.
extern "C" __global__ void __launch_bounds__(FOLD_THREADS)
    fold(const unsigned char* __restrict__ ticks, const long long* __restrict__ offsets,
         const long long* __restrict__ end_ns, const double* __restrict__ tick_size, long long stale_ns,
         long long warm_up_frames, long long* __restrict__ integers, double* __restrict__ reals,
         float* __restrict__ channels, unsigned int* __restrict__ quality, int* __restrict__ bid_px,
         int* __restrict__ ask_px, double* __restrict__ mark, long long symbol_count) {
    // As many ticks as threads, twice: while one half is folded the other is on its way.
    __shared__ uint4 staged[2][FOLD_THREADS * TICK_WORDS];
    const long long symbol = blockIdx.x;
    const int thread = threadIdx.x;
    const int threads = blockDim.x;
    const double size = tick_size[symbol];
    const long long word0 = offsets[symbol] * (long long)TICK_WORDS;
    const long long word_count = offsets[symbol + 1] * (long long)TICK_WORDS - word0;
    const uint4* words = reinterpret_cast<const uint4*>(ticks) + word0;
    State state = load_state(integers + symbol, reals + symbol, symbol_count);
    Sums sums = open_frame(state);
    const long long chunk = (long long)threads * TICK_WORDS;
    for (int i = 0; i < (int)TICK_WORDS; ++i) {
        const long long word = (long long)i * threads + thread;
        if (word < word_count) staged[0][word] = __ldg(words + word);
    }
    int half = 0;
    for (long long at = 0; at < word_count; at += chunk, half ^= 1) {
        __syncthreads();
        // The loads are on their way while the first thread folds: their values are needed after it.
        uint4 coming[TICK_WORDS];
#pragma unroll
        for (int i = 0; i < (int)TICK_WORDS; ++i) {
            const long long word = at + chunk + (long long)i * threads + thread;
            coming[i] = word < word_count ? __ldg(words + word) : make_uint4(0, 0, 0, 0);
        }
        if (thread == 0) {
            const Tick* rows = reinterpret_cast<const Tick*>(staged[half]);
            const long long count = min(chunk, word_count - at) / (long long)TICK_WORDS;
            for (long long index = 0; index < count; ++index) on_tick(rows[index], size, state, sums);
        }
        // The other half was folded before the barrier above.
#pragma unroll
        for (int i = 0; i < (int)TICK_WORDS; ++i) staged[half ^ 1][i * threads + thread] = coming[i];
    }
    if (thread == 0) {
        const Cell to = {channels + symbol, quality + symbol, bid_px + symbol,
                         ask_px + symbol,   mark + symbol,    symbol_count};
        close_cell(sums, end_ns[0], size, stale_ns, warm_up_frames, state, to);
        store_state(state, integers + symbol, reals + symbol, symbol_count);
    }
}

// ---- many frames ----------------------------------------------------------------------------------------

// A plane of `last` for each kind that a state remembers.
enum Remembered { LAST_QUOTE, LAST_BOOK, LAST_MARK, REMEMBERED };

// last int32[3, T * S]: written, the index of the cell's last tick of each kind, -1 where it has none.
extern "C" __global__ void __launch_bounds__(CELL_THREADS)
    last_ticks(const unsigned char* __restrict__ ticks, const long long* __restrict__ offsets,
               int* __restrict__ last, long long cell_count) {
    const long long cell = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (cell >= cell_count) return;
    const Tick* rows = reinterpret_cast<const Tick*>(ticks);
    const long long first = offsets[cell];
    int quote = -1;
    int book = -1;
    int mark = -1;
    for (long long index = offsets[cell + 1] - 1; index >= first && (quote < 0 || book < 0 || mark < 0); --index) {
        const unsigned char kind = rows[index].kind;
        if (kind == QUOTE && quote < 0) quote = (int)index;
        if (kind == BOOK && book < 0) book = (int)index;
        if (kind == MARK && mark < 0) mark = (int)index;
    }
    last[LAST_QUOTE * cell_count + cell] = quote;
    last[LAST_BOOK * cell_count + cell] = book;
    last[LAST_MARK * cell_count + cell] = mark;
}

// Twice the mid of the quote at an index, that of the carried state where it is -1.
__device__ __forceinline__ long long mid2_at(const Tick* rows, int index, long long carried2) {
    return index < 0 ? carried2 : two_sided(rows[index].px0, rows[index].px1);
}

// last int32[3, T * S]: of each cell's own ticks when called, of the ticks before the cell afterwards; -1: none,
// the carried state holds. closed int64[T * S]: written, frames closed before the cell. before_integers and
// before_reals: written, a copy of FrameState, which fold_cells reads while it writes the new one.
// Grid: ceil(S / CARRY_SYMBOLS) blocks of (CARRY_SYMBOLS, CARRY_STRETCHES); the frames are cut into
// CARRY_STRETCHES stretches, one for each row of threads.
extern "C" __global__ void __launch_bounds__(CARRY_SYMBOLS * CARRY_STRETCHES)
    carry_ticks(const unsigned char* __restrict__ ticks, const long long* __restrict__ integers,
                const double* __restrict__ reals, int* __restrict__ last, long long* __restrict__ closed,
                long long* __restrict__ before_integers, double* __restrict__ before_reals, long long frame_count,
                long long symbol_count) {
    // For each stretch and symbol: the last ticks of the stretch, then its last close without two sides.
    __shared__ int ends[REMEMBERED + 1][CARRY_STRETCHES][CARRY_SYMBOLS];
    const Tick* rows = reinterpret_cast<const Tick*>(ticks);
    const int x = threadIdx.x;
    const int y = threadIdx.y;
    const long long symbol = (long long)blockIdx.x * blockDim.x + x;
    const bool known = symbol < symbol_count;
    const long long length = (frame_count + blockDim.y - 1) / blockDim.y;
    const long long first = min(y * length, frame_count);
    const long long past = known ? min(first + length, frame_count) : first;
    const long long cell_count = frame_count * symbol_count;
    if (known && y == 0) {
        for (int row = 0; row < STATE_INTEGERS; ++row) {
            before_integers[row * symbol_count + symbol] = integers[row * symbol_count + symbol];
        }
        for (int row = 0; row < STATE_REALS; ++row) {
            before_reals[row * symbol_count + symbol] = reals[row * symbol_count + symbol];
        }
    }

    // A later tick has a larger index, so the last one of several cells is the largest.
    int newest[REMEMBERED] = {-1, -1, -1};
    for (long long cell = first * symbol_count + symbol; cell < past * symbol_count; cell += symbol_count) {
#pragma unroll
        for (int kind = 0; kind < REMEMBERED; ++kind) {
            newest[kind] = max(newest[kind], last[kind * cell_count + cell]);
        }
    }
#pragma unroll
    for (int kind = 0; kind < REMEMBERED; ++kind) ends[kind][y][x] = newest[kind];
    __syncthreads();
    int running[REMEMBERED] = {-1, -1, -1};
    for (int before = 0; before < y; ++before) {
#pragma unroll
        for (int kind = 0; kind < REMEMBERED; ++kind) running[kind] = max(running[kind], ends[kind][before][x]);
    }

    // Frames closed since the last close without two sides, or since the beginning of the stretch.
    int one_sided = -1;
    long long until_one_sided = past;
    long long count = 0;
    long long mid2 = 0;
    if (known) mid2 = mid2_at(rows, running[LAST_QUOTE], integers[MID2 * symbol_count + symbol]);
    for (long long frame = first; frame < past; ++frame) {
        const long long cell = frame * symbol_count + symbol;
        closed[cell] = count;
        int own[REMEMBERED];
#pragma unroll
        for (int kind = 0; kind < REMEMBERED; ++kind) {
            own[kind] = last[kind * cell_count + cell];
            last[kind * cell_count + cell] = running[kind];
            running[kind] = max(running[kind], own[kind]);
        }
        if (own[LAST_QUOTE] >= 0) mid2 = mid2_at(rows, own[LAST_QUOTE], 0);
        ++count;
        if (mid2 == 0) {
            if (one_sided < 0) until_one_sided = frame + 1;
            one_sided = (int)frame;
            count = 0;
        }
    }
    ends[REMEMBERED][y][x] = one_sided;
    __syncthreads();
    int before_one_sided = -1;
    for (int before = 0; before < y; ++before) before_one_sided = max(before_one_sided, ends[REMEMBERED][before][x]);
    // What the stretch has counted from its beginning goes on from what came before it.
    long long more = first - before_one_sided - 1;
    if (known && before_one_sided < 0) more = integers[FRAMES_CLOSED * symbol_count + symbol] + first;
    for (long long frame = first; frame < until_one_sided; ++frame) closed[frame * symbol_count + symbol] += more;
}

// The arrays of `fold` with an axis T in front; before_integers, before_reals, last and closed from carry_ticks.
// integers and reals are FrameState, written by the cells of the last frame.
extern "C" __global__ void __launch_bounds__(CELL_THREADS)
    fold_cells(const unsigned char* __restrict__ ticks, const long long* __restrict__ offsets,
               const long long* __restrict__ end_ns, const double* __restrict__ tick_size, long long stale_ns,
               long long warm_up_frames, const long long* __restrict__ before_integers,
               const double* __restrict__ before_reals, const int* __restrict__ last,
               const long long* __restrict__ closed, long long* __restrict__ integers, double* __restrict__ reals,
               float* __restrict__ channels, unsigned int* __restrict__ quality, int* __restrict__ bid_px,
               int* __restrict__ ask_px, double* __restrict__ mark, long long frame_count,
               long long symbol_count) {
    const long long cell = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long cell_count = frame_count * symbol_count;
    if (cell >= cell_count) return;
    const long long frame = cell / symbol_count;
    const long long symbol = cell % symbol_count;
    const Tick* rows = reinterpret_cast<const Tick*>(ticks);
    const double size = tick_size[symbol];
    State state = load_state(before_integers + symbol, before_reals + symbol, symbol_count);
    // The close before the last one, for the last return: the quote that the frame before starts from.
    if (frame > 0) {
        const int quote = last[LAST_QUOTE * cell_count + cell];
        const long long mid2 = mid2_at(rows, quote, state.mid2);
        const int earlier = last[LAST_QUOTE * cell_count + cell - symbol_count];
        state.last_return = return_bps(mid2_at(rows, earlier, state.mid2), mid2);
        state.mid2 = mid2;
        state.frames_closed = closed[cell];
        if (quote >= 0) take_quote(rows[quote], state);
        const int book = last[LAST_BOOK * cell_count + cell];
        if (book >= 0) take_book(rows[book], state);
        const int marked = last[LAST_MARK * cell_count + cell];
        if (marked >= 0) state.mark = rows[marked].q0;
    }
    Sums sums = open_frame(state);
    const long long past = offsets[cell + 1];
    for (long long index = offsets[cell]; index < past; ++index) on_tick(rows[index], size, state, sums);
    const Cell to = {channels + frame * CHANNEL_COUNT * symbol_count + symbol, quality + cell, bid_px + cell,
                     ask_px + cell, mark + cell, symbol_count};
    close_cell(sums, end_ns[frame], size, stale_ns, warm_up_frames, state, to);
    if (frame == frame_count - 1) store_state(state, integers + symbol, reals + symbol, symbol_count);
}
