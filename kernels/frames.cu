// Ticks to frames: gpuscalp/ops/frames.py is the definition, gpuscalp/ops/cuda_frames.py the launcher.
//
// fold  one thread per symbol; it walks the frames in order and the ticks of each frame in event order, so every
//       float64 sum has the order that the CPU's has. The carried state stays in registers between frames.

// A row of TICK (gpuscalp/schema.py), which NumPy packs without padding; nor is there any here.
struct Tick {
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
    state.bid = bid;
    state.ask = ask;
    state.bid_qty = tick.q0;
    state.ask_qty = tick.q1;
    state.quote_ns = tick.exch_ns;
}

// Scales the sums of a frame that ends with a quote into channels. Returns the quality word.
__device__ __forceinline__ unsigned int close_frame(const Sums& sums, long long end_ns, double tick_size,
                                                    long long stale_ns, long long warm_up_frames, State& state,
                                                    float* channels, long long stride) {
    const long long mid2 = state.bid + state.ask;
    const double mid = (double)mid2 * 0.5 * tick_size;
    const double imbalance = (state.bid_qty - state.ask_qty) / (state.bid_qty + state.ask_qty);
    double moved = __longlong_as_double(0x7fffffffffffffffLL);
    if (state.mid2 > 0) moved = (double)(mid2 - state.mid2) / (double)state.mid2 * 10000.0;
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

// ticks: rows of TICK as bytes, ordered by (frame, symbol), event order within; offsets int64[T * S + 1]; end_ns
// int64[T]; tick_size float64[S]; integers int64[6, S] and reals float64[8, S] are FrameState; channels
// float32[T, C, S]; quality uint32[T, S]; bid_px, ask_px int32[T, S]; mark float64[T, S].
extern "C" __global__ void __launch_bounds__(128)
    fold(const unsigned char* __restrict__ ticks, const long long* __restrict__ offsets,
         const long long* __restrict__ end_ns, const double* __restrict__ tick_size, long long stale_ns,
         long long warm_up_frames, long long* __restrict__ integers, double* __restrict__ reals,
         float* __restrict__ channels, unsigned int* __restrict__ quality, int* __restrict__ bid_px,
         int* __restrict__ ask_px, double* __restrict__ mark, long long frame_count, long long symbol_count) {
    const long long symbol = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (symbol >= symbol_count) return;
    const Tick* rows = reinterpret_cast<const Tick*>(ticks);
    const double size = tick_size[symbol];
    State state = load_state(integers + symbol, reals + symbol, symbol_count);
    for (long long frame = 0; frame < frame_count; ++frame) {
        const long long cell = frame * symbol_count + symbol;
        const long long mid2 = two_sided(state.bid, state.ask);
        Sums sums = {(unsigned int)state.doubts, 0, 0, mid2, mid2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0};
        const long long last = offsets[cell + 1];
        for (long long index = offsets[cell]; index < last; ++index) {
            const Tick& tick = rows[index];
            sums.flags |= tick.quality;
            if (tick.kind == TRADE) {
                on_trade(tick, size, state, sums);
            } else if (tick.kind == QUOTE) {
                on_quote(tick, state, sums);
            } else if (tick.kind == BOOK) {
                state.bid5 = tick.q0;
                state.ask5 = tick.q1;
                state.bid20 = tick.q2;
                state.ask20 = tick.q3;
                state.doubts = tick.quality & (GAP | RESYNC);
            } else if (tick.kind == MARK) {
                state.mark = tick.q0;
            }
        }
        mark[cell] = state.mark;
        bid_px[cell] = (int)state.bid;
        ask_px[cell] = (int)state.ask;
        float* own = channels + frame * CHANNEL_COUNT * symbol_count + symbol;
        if (two_sided(state.bid, state.ask) == 0) {
            for (int channel = 0; channel < CHANNEL_COUNT; ++channel) {
                own[channel * symbol_count] = __int_as_float(0x7fffffff);
            }
            quality[cell] = sums.flags | WARM_UP;
            state.mid2 = 0;
            state.frames_closed = 0;
            state.last_return = __longlong_as_double(0x7fffffffffffffffLL);
        } else {
            quality[cell] =
                close_frame(sums, end_ns[frame], size, stale_ns, warm_up_frames, state, own, symbol_count);
        }
    }
    store_state(state, integers + symbol, reals + symbol, symbol_count);
}
