// Exercises the host shim itself; no part of the product. Each kernel shows one thing the shim must get right
// or must catch.
#ifndef TILE
#define TILE 64
#endif

// Tree sum over static shared memory: a barrier in a loop whose trip count is the same for every thread.
extern "C" __global__ void __launch_bounds__(TILE) block_sums(const float* __restrict__ x, float* sums, int n) {
    __shared__ float part[TILE];
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    part[threadIdx.x] = i < n ? x[i] : 0.0f;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) sums[blockIdx.x] = part[0];
}

// Reverses each block's piece through dynamic shared memory.
extern "C" __global__ void reverse(const double* x, double* y) {
    extern __shared__ double piece[];
    const int base = blockIdx.x * blockDim.x;
    piece[threadIdx.x] = x[base + threadIdx.x];
    __syncthreads();
    y[base + threadIdx.x] = piece[blockDim.x - 1 - threadIdx.x];
}

// The flat index of a thread in a grid of three dimensions, written by itself.
extern "C" __global__ void flat_index(int* out) {
    const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] = thread + 1000 * block;
}

// As `reverse`, without the barrier: the order of the threads decides what is read.
extern "C" __global__ void reverse_racing(const double* x, double* y) {
    extern __shared__ double piece[];
    piece[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = piece[blockDim.x - 1 - threadIdx.x];
}

// Adds to shared memory that nobody set to zero.
extern "C" __global__ void sum_unset(const int* x, int* y) {
    __shared__ int total;
    atomicAdd(&total, x[threadIdx.x]);
    __syncthreads();
    if (threadIdx.x == 0) y[0] = total;
}

// Thread `odd` leaves (mode 0), waits at another barrier (mode 1), or goes round once less (mode 2).
extern "C" __global__ void diverge(int odd, int mode, int* out) {
    if (mode == 0 && threadIdx.x == odd) return;
    if (mode == 1 && threadIdx.x == odd) {
        __syncthreads();
    } else {
        const int rounds = mode == 2 && threadIdx.x == odd ? 2 : 3;
        for (int round = 0; round < rounds; ++round) {
            __syncthreads();
        }
    }
    out[threadIdx.x] = mode;
}

// Stores `value` at any index, inside the array or not; `through_const` breaks the promise of a const pointer.
extern "C" __global__ void store(int* out, const int* input, long long at, int value, bool through_const) {
    if (through_const) {
        const_cast<int*>(input)[at] = value;
    } else {
        out[at] = value;
    }
}

extern "C" __global__ void load(const int* input, int* out, long long at) { out[0] = input[at]; }

// Writes one element more of dynamic shared memory than it may have.
extern "C" __global__ void store_shared(int elements) {
    extern __shared__ int cells[];
    cells[elements] = 1;
}

// One rounding or two: with a fused multiply-add the small part of the product survives.
extern "C" __global__ void multiply_add(const float* a, const float* b, const float* c, float* y, int n) {
    for (int i = 0; i < n; ++i) y[i] = a[i] * b[i] + c[i];
}

extern "C" __global__ void extremes(const float* a, const float* b, float* least, float* most, int* rounded,
                                    int n) {
    for (int i = 0; i < n; ++i) {
        least[i] = fminf(a[i], b[i]);
        most[i] = max(a[i], b[i]);
        rounded[i] = __float2int_rn(a[i]);
    }
}
