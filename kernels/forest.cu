// Margins of all members of an ensemble: rows and trees in parallel, leaves added in the order of the trees.
//
// forest_leaves   the leaf that each row reaches in each tree, to scratch [T, rows of a slab]
// forest_margins  adds them up: one sum per row and group, that is one class of one member, in tree order
// Twin: gpuscalp/ops/forest.py, _margins; launcher: gpuscalp/ops/cuda_forest.py; the arrays are those of
// gpuscalp.ops.forest_pack.PackedTrees.
//
// Why two. For 512 rows and 5 x 3 x 300 trees of depth 6 there are 512 x 4500 walks, but only 512 x 15 sums. A
// block that adds what it has walked is tied to one group: 16 x 15 blocks for 132 multiprocessors, each with 38
// stretches of 8 trees one after the other. Walks alone can be cut anywhere among the trees, so that every
// multiprocessor has all the threads it can hold; the price is 4 bytes per walk to and from scratch, 9 MB each way,
// which stay in the L2.
//
// Why rows in shared memory. The 32 threads of a warp walk one tree for 32 rows. They read the nodes of a level
// together: 8 bytes each, neighbours, at most four lines. But their values lie in 32 rows, and a warp's load of
// 32 lines takes as many turns: 512 x 4500 / 32 warps x 6 levels x 32 turns on 132 multiprocessors are 105,000 turns
// each. In shared memory, with rows an odd number of words apart, values of one column lie in 32 different
// banks (one turn), values of any columns in few that are the same (about four).

// A node is 8 bytes, little endian: threshold (float32), then column (uint32). Column F + f is column f for a
// split that sends a missing value left.
__device__ __forceinline__ bool goes_left(unsigned long long node, const float* row, unsigned int feature_count) {
    const float threshold = __uint_as_float(static_cast<unsigned int>(node));
    const unsigned int column = static_cast<unsigned int>(node >> 32);
    // Both comparisons are false for NaN.
    return column < feature_count ? row[column] < threshold : !(row[column - feature_count] >= threshold);
}

__device__ __forceinline__ float perfect_leaf(const unsigned long long* nodes, const float* leaves, int depth,
                                              const float* row, unsigned int feature_count) {
    unsigned int i = 0;
    for (int level = 0; level < depth; ++level) {
        i = 2 * i + (goes_left(nodes[i], row, feature_count) ? 1u : 2u);
    }
    return leaves[i - ((1u << depth) - 1u)];
}

__device__ __forceinline__ float linked_leaf(const unsigned long long* nodes, const unsigned int* links,
                                             const float* row, unsigned int feature_count) {
    unsigned int i = 0;
    while (links[i] != 0) {
        i = links[i] + (goes_left(nodes[i], row, feature_count) ? 0u : 1u);
    }
    return __uint_as_float(static_cast<unsigned int>(nodes[i]));
}

// Block: rows x trees; rows are a part of the slab, and lie in dynamic shared memory, `row_words` words apart. Grid:
// (ceil(row_count / blockDim.x), any number): each block takes every gridDim.y-th stretch of blockDim.y trees.
extern "C" __global__ void __launch_bounds__(512)
forest_leaves(const float* __restrict__ x, int row_count, int feature_count, int row_words, long long tree_count,
              const unsigned long long* __restrict__ nodes, const float* __restrict__ leaves,
              const unsigned int* __restrict__ links, const int* __restrict__ depth,
              const long long* __restrict__ node_start, const long long* __restrict__ tail_start,
              float* __restrict__ found, long long found_stride) {
    extern __shared__ float values[];  // [blockDim.x][row_words]
    const long long row0 = static_cast<long long>(blockIdx.x) * blockDim.x;
    const long long left = row_count - row0;
    const int count = left < blockDim.x ? static_cast<int>(left) : static_cast<int>(blockDim.x);
    const int thread = threadIdx.y * blockDim.x + threadIdx.x;
    const int threads = blockDim.x * blockDim.y;
    for (int i = thread; i < count * feature_count; i += threads) {
        values[i / feature_count * row_words + i % feature_count] = x[row0 * feature_count + i];
    }
    __syncthreads();
    if (static_cast<int>(threadIdx.x) >= count) return;
    const float* own = values + threadIdx.x * row_words;
    const long long step = static_cast<long long>(gridDim.y) * blockDim.y;
    for (long long tree = static_cast<long long>(blockIdx.y) * blockDim.y + threadIdx.y; tree < tree_count;
         tree += step) {
        const unsigned long long* root = nodes + node_start[tree];
        found[tree * found_stride + row0 + threadIdx.x] =
            depth[tree] == 0 ? linked_leaf(root, links + tail_start[tree], own, feature_count)
                             : perfect_leaf(root, leaves + tail_start[tree], depth[tree], own, feature_count);
    }
}

// Margins [M, R, K] of rows first_row to first_row + row_count. Block: rows x loaders, which bring the leaves of
// CHUNK / blockDim.x trees into shared memory, together; then one thread of each row adds them. Grid:
// (ceil(row_count / blockDim.x), groups).
#define CHUNK 2048
extern "C" __global__ void __launch_bounds__(256)
forest_margins(const float* __restrict__ found, long long found_stride, int row_count, int class_count,
               const long long* __restrict__ group_start, const float* __restrict__ base, long long first_row,
               long long rows_in_all, float* __restrict__ out) {
    __shared__ float chunk[CHUNK];  // [trees][blockDim.x]
    const long long row = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    const int group = blockIdx.y;
    const int width = CHUNK / blockDim.x;
    const long long last = group_start[group + 1];
    const bool adds = threadIdx.y == 0 && row < row_count;
    float sum = base[group];
    for (long long first = group_start[group]; first < last; first += width) {
        const int count = last - first < width ? static_cast<int>(last - first) : width;
        if (row < row_count) {
            for (int i = threadIdx.y; i < count; i += blockDim.y) {
                chunk[i * blockDim.x + threadIdx.x] = found[(first + i) * found_stride + row];
            }
        }
        __syncthreads();
        if (adds) {
#pragma unroll 16
            for (int i = 0; i < count; ++i) sum += chunk[i * blockDim.x + threadIdx.x];
        }
        __syncthreads();
    }
    if (adds) {
        const int member = group / class_count;
        out[(member * rows_in_all + first_row + row) * class_count + group % class_count] = sum;
    }
}
