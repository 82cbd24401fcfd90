/* What the lanes of a warp do together, and copies with cp.async.
 *
 * The last lane of a mask to arrive computes for all, in the fragments of the PTX ISA. */
#include "emu_internal.h"

#include <string.h>

namespace emu
{

static float from_bf16(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float x;

    memcpy(&x, &wide, sizeof x);
    return x;
}

static uint32_t word(const char *bytes)
{
    uint32_t value;

    memcpy(&value, bytes, sizeof value);
    return value;
}

static bool has(unsigned mask, int lane)
{
    return (mask >> lane & 1) != 0;
}

static void shuffle_lanes(fiber *warp, unsigned mask)
{
    for (int i = 0; i < WARP; i++) {
        int source = warp[i].parameter;

        if (!has(mask, i))
            continue;
        if (source < 0 || source >= WARP || !has(mask, source))
            fail("shuffle", "lane %d reads lane %d outside the mask %08x at %s:%d", i, source, mask,
                 warp[i].at.file, warp[i].at.line);
        memcpy(warp[i].out, warp[source].in, 8);
    }
}

static uint32_t reduced(warp_op op, uint32_t a, uint32_t b, bool is_signed)
{
    const bool less = is_signed ? (int32_t)a < (int32_t)b : a < b;

    switch (op) {
    case REDUCE_ADD:
        return a + b;
    case REDUCE_MAX:
        return less ? b : a;
    case REDUCE_MIN:
        return less ? a : b;
    case REDUCE_AND:
        return a & b;
    default:
        return a | b;
    }
}

static void reduce_lanes(warp_op op, fiber *warp, unsigned mask)
{
    const int first = __builtin_ctz(mask);
    uint32_t sum = op == BALLOT ? 0 : word(warp[first].in);

    for (int i = 0; i < WARP; i++) {
        if (!has(mask, i))
            continue;
        if (op == BALLOT)
            sum |= word(warp[i].in) << i;
        else if (i != first)
            sum = reduced(op, sum, word(warp[i].in), warp[first].parameter != 0);
    }
    for (int i = 0; i < WARP; i++) {
        if (has(mask, i))
            memcpy(warp[i].out, &sum, sizeof sum);
    }
}

static void match_lanes(fiber *warp, unsigned mask)
{
    for (int i = 0; i < WARP; i++) {
        uint32_t same = 0;

        for (int j = 0; j < WARP; j++) {
            if (has(mask, j) && word(warp[i].in) == word(warp[j].in))
                same |= 1u << j;
        }
        if (has(mask, i))
            memcpy(warp[i].out, &same, sizeof same);
    }
}

/* Element `which` (0, 1) of matrix `matrix` for lane `lane`, which finds the address of row r of
 * the matrix in lane 8 matrix + r: 2 (i % 4) and the next of row i / 4, or, transposed, of column.
 */
static uint16_t matrix_element(warp_op op, fiber *warp, int lane, int matrix, int which)
{
    const int along = lane / 4, pair = 2 * (lane % 4) + which;
    const int row = op == LDMATRIX ? along : pair, column = op == LDMATRIX ? pair : along;
    const char *begin;
    uint16_t element;

    memcpy(&begin, warp[8 * matrix + row].in, sizeof begin);
    begin += 2 * column;
    if (checking)
        check_access((int)(warp - fibers) + lane, begin, sizeof element, LOAD);
    memcpy(&element, begin, sizeof element);
    return element;
}

static void load_matrices(warp_op op, fiber *warp)
{
    const int matrices = warp[0].parameter;

    for (int r = 0; r < 8 * matrices; r++) {
        const void *row;

        memcpy(&row, warp[r].in, sizeof row);
        if ((uintptr_t)row % 16 != 0 || !is_shared(row))
            fail("misaligned",
                 "ldmatrix: the row of lane %d is no 16-byte aligned shared memory, at %s:%d", r,
                 warp[r].at.file, warp[r].at.line);
    }
    for (int i = 0; i < WARP; i++) {
        for (int k = 0; k < 2 * matrices; k++) {
            const uint16_t element = matrix_element(op, warp, i, k / 2, k % 2);

            memcpy(warp[i].out + sizeof element * (size_t)k, &element, sizeof element);
        }
    }
}

struct matrices {
    float a[16][16], b[16][8], c[16][8];
};

/* Registers of lane i: four of a, two of b, four of c; each of a and b holds two columns (rows). */
static void gather_fragments(struct matrices *m, const fiber *warp)
{
    for (int i = 0; i < WARP; i++) {
        const int row = i / 4, column = 2 * (i % 4);
        uint16_t ab[12];
        float c[4];

        memcpy(ab, warp[i].in, sizeof ab);
        memcpy(c, warp[i].in + sizeof ab, sizeof c);
        for (int r = 0; r < 4; r++) {
            for (int e = 0; e < 2; e++)
                m->a[row + 8 * (r & 1)][column + 8 * (r >> 1) + e] = from_bf16(ab[2 * r + e]);
        }
        for (int r = 0; r < 2; r++) {
            for (int e = 0; e < 2; e++) {
                m->b[column + 8 * r + e][row] = from_bf16(ab[8 + 2 * r + e]);
                m->c[row + 8 * r][column + e] = c[2 * r + e];
            }
        }
    }
}

static void multiply(fiber *warp)
{
    struct matrices m;

    gather_fragments(&m, warp);
    for (int i = 0; i < 16; i++) {
        for (int k = 0; k < 16; k++) {
            for (int j = 0; j < 8; j++)
                m.c[i][j] += m.a[i][k] * m.b[k][j];
        }
    }
    for (int i = 0; i < WARP; i++) {
        for (int r = 0; r < 2; r++)
            memcpy(warp[i].out + 8 * r, &m.c[i / 4 + 8 * r][2 * (i % 4)], 2 * sizeof(float));
    }
    counted.flops += 2.0 * 16 * 16 * 8;
}

static void compute(warp_op op, fiber *warp, unsigned mask)
{
    switch (op) {
    case SYNC:
        warp_syncs[(warp - fibers) / WARP]++;
        break;
    case SHUFFLE:
        shuffle_lanes(warp, mask);
        break;
    case MATCH:
        match_lanes(warp, mask);
        break;
    case LDMATRIX:
    case LDMATRIX_TRANSPOSED:
        load_matrices(op, warp);
        break;
    case MMA:
        multiply(warp);
        break;
    default:
        reduce_lanes(op, warp, mask);
    }
}

static void check_mask(unsigned mask, place at)
{
    const int warp = running / WARP, lanes = threads_in_block - warp * WARP;

    if (!has(mask, running % WARP))
        fail("warp", "lane %d is not in the mask %08x of its own warp operation at %s:%d",
             running % WARP, mask, at.file, at.line);
    if (lanes < WARP && mask >> lanes != 0)
        fail("warp", "the mask %08x has lanes that the block has not, at %s:%d", mask, at.file,
             at.line);
    if ((mask & warp_gone[warp]) != 0)
        fail("warp", "the mask %08x has lanes that have left the kernel, at %s:%d", mask, at.file,
             at.line);
}

/* All lanes of the mask wait: for the same? */
static void check_meeting(const fiber *warp, warp_op op, unsigned mask, place at)
{
    for (int i = 0; i < WARP; i++) {
        if (has(mask, i) && (warp[i].op != op || warp[i].mask != mask))
            fail("warp", "lanes meet in different warp operations or masks: %s:%d and %s:%d",
                 at.file, at.line, warp[i].at.file, warp[i].at.line);
    }
}

void meet(warp_op op, unsigned mask, const void *in, int in_bytes, void *out, int out_bytes,
          int parameter, place at)
{
    const int index = running, first = index / WARP * WARP;
    fiber *me = &fibers[index], *warp = &fibers[first];
    uint32_t *waiting = &warp_waiting[index / WARP];

    me->op = op;
    me->mask = mask;
    me->at = at;
    me->parameter = parameter;
    me->state = AT_WARP_OP;
    if (in_bytes > 0)
        memcpy(me->in, in, (size_t)in_bytes);
    check_mask(mask, at);
    *waiting |= 1u << (index - first);
    if ((*waiting & mask) != mask) {
        suspend();
    } else {
        check_meeting(warp, op, mask, at);
        compute(op, warp, mask);
        *waiting &= ~mask;
        for (int i = 0; i < WARP; i++) {
            if (has(mask, i) && first + i != index)
                wake(first + i);
        }
        me->state = READY;
        if ((random_bits() & 1) != 0)
            let_others();
    }
    if (out_bytes > 0)
        memcpy(out, me->out, (size_t)out_bytes);
}

/* ---- cp.async: lands as late as it may, and its target is unreadable until then ---- */

void copy_async(void *shared, const void *global, int bytes, place at)
{
    fiber *me = &fibers[running];

    me->at = at;
    if ((uintptr_t)shared % 16 != 0 || (uintptr_t)global % 16 != 0 || bytes < 0 || bytes > 16)
        fail("misaligned", "cp.async wants 16-byte addresses and 0 to 16 bytes, at %s:%d", at.file,
             at.line);
    if (!is_shared(shared) || (bytes > 0 && !is_device(global)))
        fail("bad-pointer", "cp.async copies device memory to shared memory, at %s:%d", at.file,
             at.line);
    if (checking) {
        access_pc = __builtin_return_address(0);
        check_access(running, shared, 16, STORE);
        if (bytes > 0)
            check_access(running, global, (size_t)bytes, LOAD);
        memset(shadow_of + offset_of(shared), ON_ITS_WAY, 16);
        access_pc = nullptr;
    }
    memset(shared, 0xff, 16);
    me->copies.push_back({shared, global, bytes, me->groups});
}

void commit_copies()
{
    fibers[running].groups++;
}

/* Completes all groups but the newest `pending`. */
void finish_copies(int pending)
{
    fiber *me = &fibers[running];
    size_t done = 0;

    while (done < me->copies.size() && me->copies[done].group < me->groups - pending) {
        const async_copy *copy = &me->copies[done++];
        char bytes[16] = {0};

        memcpy(bytes, copy->from, (size_t)copy->bytes);
        if (checking) {
            memset(shadow_of + offset_of(copy->to), ALLOCATED, 16);
            check_access(running, copy->to, 16, STORE);
        }
        memcpy(copy->to, bytes, 16);
    }
    me->copies.erase(me->copies.begin(), me->copies.begin() + (long)done);
}

void wait_for_copies(int pending)
{
    finish_copies(pending);
}

} // namespace emu
