// Columns that are made from others by a formula: gpuscalp/ops/formulas.py is the definition,
// gpuscalp/ops/cuda_formulas.py the launcher.
//
// formulas   one thread per (symbol, frame) and formula, which works through the instructions with a stack of its
//            own; all threads of a launch's row have the same instructions. The stacks lie in shared memory, the
//            threads side by side: an array that is indexed by a variable would lie in local memory.

#ifndef FORMULA_THREADS
#define FORMULA_THREADS 128
#endif
// Values that a formula may have waiting: STACK of gpuscalp/ops/formula_program.py.
#ifndef FORMULA_STACK
#define FORMULA_STACK 8
#endif

enum Code { COLUMN, NUMBER, ADD, SUBTRACT, MULTIPLY, DIVIDE, MIN, MAX, NEGATIVE, ABS, SQRT };

// The tables of FormulaProgram; features float32[S, F, T], read and written. Grid: (ceil(S T / blockDim.x), number
// of formulas).
extern "C" __global__ void __launch_bounds__(FORMULA_THREADS)
    formulas(const long long* __restrict__ table, const long long* __restrict__ code,
             const float* __restrict__ numbers, float* features, long long symbol_count, long long feature_count,
             long long frame_count) {
    __shared__ float stacks[FORMULA_STACK * FORMULA_THREADS];
    const long long row = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= symbol_count * frame_count) return;
    float* const own = features + row / frame_count * feature_count * frame_count + row % frame_count;
    const long long* const formula = table + 3 * blockIdx.y;
    const int width = blockDim.x;
    int top = (int)threadIdx.x - width;  // where the last value lies; the stack is empty
    for (long long at = formula[1]; at < formula[2]; ++at) {
        const long long operand = code[2 * at + 1];
        switch (code[2 * at]) {
            case COLUMN: stacks[top += width] = own[operand * frame_count]; continue;
            case NUMBER: stacks[top += width] = numbers[operand]; continue;
            case NEGATIVE: stacks[top] = -stacks[top]; continue;
            case ABS: stacks[top] = fabsf(stacks[top]); continue;
            case SQRT: stacks[top] = sqrtf(stacks[top]); continue;
        }
        const float y = stacks[top];
        const float x = stacks[top -= width];
        switch (code[2 * at]) {
            case ADD: stacks[top] = x + y; break;
            case SUBTRACT: stacks[top] = x - y; break;
            case MULTIPLY: stacks[top] = x * y; break;
            case DIVIDE: stacks[top] = x / y; break;
            case MIN: stacks[top] = y < x || y != y ? y : x; break;
            case MAX: stacks[top] = y > x || y != y ? y : x; break;
        }
    }
    const float value = stacks[top];
    own[formula[0] * frame_count] = value - value == 0.0f ? value : __int_as_float(0x7fffffff);
}
