// Columns that need more than one symbol, or the clock: gpuscalp/ops/context.py is the definition,
// gpuscalp/ops/cuda_context.py the launcher.
//
// context    every such column is one value per frame that goes to all symbols (or is taken from each symbol's
//            own): the leader's, the mean over symbols, an entry of a table. One block per (column, stretch of
//            frames): the first row of threads makes the values, a sum in the order of the symbols; all write.
//            What is summed all bring into shared memory, the next symbols while the last ones are summed: one
//            thread that fetched it itself would wait for memory once for every few symbols. Means take longest:
//            their blocks come first.
// transpose  float32[F, S] to float32[S, F] through shared memory

#ifndef CONTEXT_THREADS
#define CONTEXT_THREADS 256
#endif
// Symbols that a thread has under way from memory at a time.
#ifndef CONTEXT_FETCHES
#define CONTEXT_FETCHES 4
#endif
#ifndef TRANSPOSE_TILE
#define TRANSPOSE_TILE 32
#endif

__device__ __forceinline__ float nan32() { return __int_as_float(0x7fffffff); }

// Division that rounds down, as Python's: a time before 1970 is negative.
__device__ __forceinline__ long long floor_div(long long a, long long b) {
    const long long quotient = a / b;
    return quotient - (a % b != 0 && (a < 0) != (b < 0));
}

// The values of CONTEXT_FETCHES symbols from `first` + threadIdx.y on, blockDim.y apart; NaN behind the last one.
// `values` points at symbol 0 of the thread's frame.
__device__ __forceinline__ void fetch_symbols(const float* values, long long stride, long long symbol_count,
                                              bool inside, long long first, float (&fetched)[CONTEXT_FETCHES]) {
#pragma unroll
    for (int i = 0; i < CONTEXT_FETCHES; ++i) {
        const long long symbol = first + i * blockDim.y + threadIdx.y;
        fetched[i] = inside && symbol < symbol_count ? values[symbol * stride] : nan32();
    }
}

// Mean over the symbols that have a value, float32 in their order; for the first row of threads, of their frames.
// shared: CONTEXT_FETCHES values of each thread of the block.
__device__ __forceinline__ float mean_of(const float* values, long long stride, long long symbol_count,
                                         bool inside, float* shared) {
    const int symbols = CONTEXT_FETCHES * blockDim.y;  // at a time
    float total = 0.0f;
    int count = 0;
    float fetched[CONTEXT_FETCHES];
    fetch_symbols(values, stride, symbol_count, inside, 0, fetched);
    for (long long first = 0; first < symbol_count; first += symbols) {
#pragma unroll
        for (int i = 0; i < CONTEXT_FETCHES; ++i) {
            shared[(i * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x] = fetched[i];
        }
        __syncthreads();
        fetch_symbols(values, stride, symbol_count, inside, first + symbols, fetched);
        if (threadIdx.y == 0) {
#pragma unroll 8
            for (int i = 0; i < symbols; ++i) {
                const float value = shared[i * blockDim.x + threadIdx.x];
                total = value == value ? total + value : total;
                count += value == value;
            }
        }
        __syncthreads();
    }
    return count > 0 ? total / (float)count : nan32();
}

__device__ __forceinline__ float time_of(const long long* row, long long step_s, const float* table,
                                         long long end_ns) {
    const long long period_s = row[1];
    const long long second = floor_div(end_ns, 1000000000LL);
    const long long within = second - floor_div(second, period_s) * period_s;
    return table[row[2] + within / step_s];
}

// The tables of ContextProgram; features float32[S, F, T], read in the ladder's columns and written in the
// context's. Grid: (ceil(T / blockDim.x), number of columns). Block: x over frames, y over symbols.
extern "C" __global__ void __launch_bounds__(CONTEXT_THREADS)
    context(const long long* __restrict__ leader, const long long* __restrict__ leader_columns,
            long long leader_count, const long long* __restrict__ mean_columns, long long mean_count,
            const long long* __restrict__ relative_columns, long long relative_count,
            const long long* __restrict__ time_columns, const long long* __restrict__ time_steps,
            const float* __restrict__ table, const long long* __restrict__ end_ns, float* features,
            long long symbol_count, long long feature_count, long long frame_count) {
    __shared__ float values[CONTEXT_FETCHES * CONTEXT_THREADS];
    const long long frame = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long stride = feature_count * frame_count;  // from one symbol to the next
    long long row = blockIdx.y;
    long long source = -1;  // the column that the value is taken off, per symbol
    long long target;
    if (row < mean_count + relative_count) {
        const bool relative = row >= mean_count;
        const long long* pair = relative ? relative_columns + 2 * (row - mean_count) : mean_columns + 2 * row;
        target = pair[1];
        if (relative) source = pair[0];
        const float mean = mean_of(features + pair[0] * frame_count + frame, stride, symbol_count,
                                   frame < frame_count, values);
        if (threadIdx.y == 0) values[threadIdx.x] = mean;
    } else if ((row -= mean_count + relative_count) < leader_count) {
        target = leader_columns[2 * row + 1];
        if (threadIdx.y == 0 && frame < frame_count) {
            const long long column = leader_columns[2 * row];
            values[threadIdx.x] =
                leader[0] < 0 ? nan32() : features[leader[0] * stride + column * frame_count + frame];
        }
    } else {
        row -= leader_count;
        target = time_columns[3 * row];
        if (threadIdx.y == 0 && frame < frame_count) {
            values[threadIdx.x] = time_of(time_columns + 3 * row, time_steps[row], table, end_ns[frame]);
        }
    }
    __syncthreads();
    if (frame >= frame_count) return;
    const float value = values[threadIdx.x];
    float* const out = features + target * frame_count + frame;
    if (source < 0) {
        for (long long symbol = threadIdx.y; symbol < symbol_count; symbol += blockDim.y) out[symbol * stride] = value;
        return;
    }
    const float* const from = features + source * frame_count + frame;
    for (long long first = 0; first < symbol_count; first += CONTEXT_FETCHES * blockDim.y) {
        float fetched[CONTEXT_FETCHES];
        fetch_symbols(from, stride, symbol_count, true, first, fetched);
#pragma unroll
        for (int i = 0; i < CONTEXT_FETCHES; ++i) {
            const long long symbol = first + i * blockDim.y + threadIdx.y;
            if (symbol < symbol_count) out[symbol * stride] = fetched[i] - value;
        }
    }
}

// Grid: (ceil(S / TRANSPOSE_TILE), ceil(F / TRANSPOSE_TILE)). Block: (TRANSPOSE_TILE, any divisor of it).
extern "C" __global__ void __launch_bounds__(CONTEXT_THREADS)
    transpose(const float* __restrict__ rows, float* __restrict__ out, long long feature_count,
              long long symbol_count) {
    // One column more than the tile: a column of it then lies in as many banks as it has rows.
    __shared__ float tile[TRANSPOSE_TILE][TRANSPOSE_TILE + 1];
    const long long symbol0 = (long long)blockIdx.x * TRANSPOSE_TILE;
    const long long feature0 = (long long)blockIdx.y * TRANSPOSE_TILE;
    for (int y = threadIdx.y; y < TRANSPOSE_TILE; y += blockDim.y) {
        const long long feature = feature0 + y;
        const long long symbol = symbol0 + threadIdx.x;
        if (feature < feature_count && symbol < symbol_count) {
            tile[y][threadIdx.x] = rows[feature * symbol_count + symbol];
        }
    }
    __syncthreads();
    for (int y = threadIdx.y; y < TRANSPOSE_TILE; y += blockDim.y) {
        const long long symbol = symbol0 + y;
        const long long feature = feature0 + threadIdx.x;
        if (feature < feature_count && symbol < symbol_count) {
            out[symbol * feature_count + feature] = tile[threadIdx.x][y];
        }
    }
}
