// A digest of each row's bits: gpuscalp/ops/row_digest.py is the definition, gpuscalp/ops/cuda_row_digest.py the
// launcher. Integers only, so every order of the threads gives the same.
//
// digest  DIGEST_ROWS rows per block. All its threads bring a stretch of the rows into shared memory, neighbours
//         reading neighbours; then one thread per row and chain takes it in. A chain is a product after a product,
//         so its length sets the time: four threads per row work on the four chains side by side.

#ifndef DIGEST_THREADS
#define DIGEST_THREADS 128
#endif
#define DIGEST_ROWS 8
#define CHAINS 4
#define STRETCH 128  // words of a row at a time, a multiple of CHAINS

typedef unsigned long long u64;

__device__ __forceinline__ u64 mix(u64 state, u64 word) {
    const u64 mixed = (state ^ word) * 0xD6E8FEB86659FD93ULL;
    return mixed ^ (mixed >> 32);
}

// The bits of a float, those of all NaN being the same.
__device__ __forceinline__ u64 plain(unsigned int bits) {
    return (bits & 0x7FFFFFFFu) > 0x7F800000u ? 0x7FC00000ULL : (u64)bits;
}

// rows float32[row_count, column_count] by their bits; first, second, third [row_count], of which `more` are
// there; out uint64[row_count]. Grid: ceil(row_count / DIGEST_ROWS).
extern "C" __global__ void __launch_bounds__(DIGEST_THREADS)
    digest(const unsigned int* __restrict__ rows, long long row_count, long long column_count,
           const unsigned int* __restrict__ first, const unsigned int* __restrict__ second,
           const unsigned int* __restrict__ third, int more, u64* __restrict__ out) {
    // Four words more than the stretch: the chains of eight rows then read from 32 different banks.
    __shared__ unsigned int words[DIGEST_ROWS][STRETCH + CHAINS];
    __shared__ u64 states[DIGEST_ROWS][CHAINS];
    const long long row0 = (long long)blockIdx.x * DIGEST_ROWS;
    const int count = (int)min((long long)DIGEST_ROWS, row_count - row0);
    const long long whole = column_count - column_count % CHAINS;
    const u64 seed = 0x9E3779B97F4A7C15ULL;
    for (int i = threadIdx.x; i < DIGEST_ROWS * CHAINS; i += blockDim.x) {
        const int chain = i % CHAINS;
        states[i / CHAINS][chain] = chain == 0 ? seed : mix(seed, (u64)chain);
    }
    for (long long start = 0; start < column_count; start += STRETCH) {
        const int width = (int)min((long long)STRETCH, column_count - start);
        for (int i = threadIdx.x; i < count * width; i += blockDim.x) {
            words[i / width][i % width] = rows[(row0 + i / width) * column_count + start + i % width];
        }
        __syncthreads();
        for (int i = threadIdx.x; i < count * CHAINS; i += blockDim.x) {
            const int chain = i % CHAINS;
            const unsigned int* own = words[i / CHAINS];
            u64 state = states[i / CHAINS][chain];
            const int past = (int)min((long long)width, whole - start);
            for (int column = chain; column < past; column += CHAINS) state = mix(state, plain(own[column]));
            if (chain == 0) {  // what is left of the row when the chains have had as many words each
                for (int column = past; column < width; ++column) state = mix(state, plain(own[column]));
            }
            states[i / CHAINS][chain] = state;
        }
        __syncthreads();
    }
    __syncthreads();  // for a row without columns
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        u64 state = mix(mix(mix(states[i][0], states[i][1]), states[i][2]), states[i][3]);
        if (more > 0) state = mix(state, (u64)first[row0 + i]);
        if (more > 1) state = mix(state, (u64)second[row0 + i]);
        if (more > 2) state = mix(state, (u64)third[row0 + i]);
        out[row0 + i] = state;
    }
}
