// Margins of all members of an ensemble, rows and trees in parallel, leaves added in the order of the trees.
//
// forest_margins(x [R, F], row_count, feature_count, class_count, nodes, leaves, links, depth, node_start,
//                tail_start, group_start, base, out [M, R, K])
// Twin: gpuscalp/ops/forest.py, _margins; launcher: gpuscalp/ops/cuda_forest.py; the arrays are those of
// gpuscalp.ops.forest_pack.PackedTrees.
//
// A block has blockDim.x rows and one group, that is one class of one member (blockIdx.y). Its threads walk
// blockDim.y trees at a time, each for its row, and leave what they find in shared memory; then one thread of
// each row adds these leaves in tree order. A sum is so never split, whatever the shape of the block.
// Dynamic shared memory: 4 bytes per thread.

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

extern "C" __global__ void __launch_bounds__(256)
forest_margins(const float* __restrict__ x, int row_count, int feature_count, int class_count,
               const unsigned long long* __restrict__ nodes, const float* __restrict__ leaves,
               const unsigned int* __restrict__ links, const int* __restrict__ depth,
               const long long* __restrict__ node_start, const long long* __restrict__ tail_start,
               const long long* __restrict__ group_start, const float* __restrict__ base,
               float* __restrict__ out) {
    extern __shared__ float found[];  // [blockDim.y][blockDim.x]
    const long long row = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    const int group = blockIdx.y;
    const long long last = group_start[group + 1];
    const bool adds = threadIdx.y == 0 && row < row_count;
    float sum = base[group];
    for (long long first = group_start[group]; first < last; first += blockDim.y) {
        const long long tree = first + threadIdx.y;
        if (tree < last && row < row_count) {
            const float* own = x + row * feature_count;
            const unsigned long long* root = nodes + node_start[tree];
            found[threadIdx.y * blockDim.x + threadIdx.x] =
                depth[tree] == 0 ? linked_leaf(root, links + tail_start[tree], own, feature_count)
                                 : perfect_leaf(root, leaves + tail_start[tree], depth[tree], own, feature_count);
        }
        __syncthreads();
        if (adds) {
            const long long left = last - first;
            const unsigned int count = left < blockDim.y ? static_cast<unsigned int>(left) : blockDim.y;
            for (unsigned int i = 0; i < count; ++i) {
                sum += found[i * blockDim.x + threadIdx.x];
            }
        }
        __syncthreads();
    }
    if (adds) {
        const int member = group / class_count;
        out[(static_cast<long long>(member) * row_count + row) * class_count + group % class_count] = sum;
    }
}
