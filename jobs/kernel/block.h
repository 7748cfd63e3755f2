/* Scores rows in blocks, for one width of vectors. Included once a width, with these defined:
 *
 * NAME(x)       x with the width's suffix
 * WIDTH         bytes of a vector
 * VECTORS       vectors a block; a plane of a block must fit in registers
 * TARGET        the attribute that lets the compiler use the instructions
 * LOOKUP(t, i)  of each byte of i below 16 that byte of the 16 at t, of 0x80 zero
 * ADD_LEAVES    optional: a faster NAME(add_leaves) is defined already
 *
 * Every row starts with all leaves of a tree possible. A split removes those of the side that the row does not go to;
 * sides are laid out so that the smaller one comes first, and only that is ever removed: the lowest leaf that is left
 * is the one that the row reaches (Lucchese et al., QuickScorer, SIGIR 2015; here rows and not splits share a vector,
 * as in Ye et al., RapidScorer, KDD 2018).
 */

#define ROWS (WIDTH * VECTORS)
#define INLINE static inline __attribute__((always_inline)) TARGET
#define VEC NAME(vec)
#define UVEC NAME(uvec)

typedef int8_t VEC __attribute__((vector_size(WIDTH), aligned(WIDTH), may_alias));
typedef uint8_t UVEC __attribute__((vector_size(WIDTH), aligned(WIDTH), may_alias));

INLINE VEC NAME(splat)(int8_t byte) { return (VEC){0} + byte; }

/* Numbers as LightGBM reads them: all that is within 1e-35f of zero is zero. NaN becomes zero here and is noted. */
INLINE void NAME(normalize)(const double *from, int rows, double *numbers, uint8_t *is_nan)
{
    for (int row = 0; row < rows; row++) {
        double number = from[row];
        is_nan[row] = number != number;
        numbers[row] = __builtin_fabs(number) > ZERO_THRESHOLD ? number : 0.0;
    }
}

/* How many thresholds each number is above. */
INLINE void NAME(rank)(const double *thresholds, int halvings, const double *numbers, int64_t *ranks)
{
    memset(ranks, 0, ROWS * sizeof *ranks);
    for (int64_t half = halvings ? (int64_t)1 << (halvings - 1) : 0; half; half >>= 1)
        for (int row = 0; row < ROWS; row++)
            ranks[row] += thresholds[ranks[row] + half - 1] < numbers[row] ? half : 0;
}

INLINE void NAME(view_numbers)(const struct view *view, const int64_t *ranks, const double *numbers,
                               const uint8_t *is_nan, uint8_t *block)
{
    uint8_t *bytes = block + (size_t)view->slot * ROWS;
    int64_t base = view->base;
    uint8_t missing = view->default_left ? 0 : 255;
    for (int row = 0; row < ROWS; row++) {
        int64_t place = ranks[row] - base;
        place = place < 0 ? 0 : place > 255 ? 255 : place;
        bytes[row] = (uint8_t)place;
    }
    if (view->missing == MISSING_NAN)
        for (int row = 0; row < ROWS; row++) bytes[row] = is_nan[row] ? missing : bytes[row];
    if (view->missing == MISSING_ZERO)
        for (int row = 0; row < ROWS; row++) bytes[row] = numbers[row] == 0.0 ? missing : bytes[row];
    for (int row = 0; row < ROWS; row++) bytes[row] ^= 0x80; /* compared as signed: SSE and AVX2 know no other way */
}

/* The class of each category; 0 is that of NaN, of what is negative, and of what no split of the column names. */
INLINE void NAME(classify)(const uint16_t *classes, int64_t count, const double *numbers, const uint8_t *is_nan,
                           int64_t *places)
{
    for (int row = 0; row < ROWS; row++) {
        double number = numbers[row];
        int known = !is_nan[row] && number > -1.0 && number < (double)count; /* -0.5 is category 0, as in C */
        places[row] = known ? classes[(int64_t)number] : 0;
    }
}

/* Slots: the place's byte of a set's first and of its second 16, 0x80 where it is in the others; its bit there. */
INLINE void NAME(view_classes)(const struct view *view, const int64_t *places, uint8_t *block)
{
    uint8_t *low = block + (size_t)view->slot * ROWS, *high = low + ROWS, *bit = high + ROWS;
    int64_t base = view->base;
    for (int row = 0; row < ROWS; row++) {
        int64_t place = places[row] - base;
        place = place < 0 || place > 255 ? 0 : place;
        int byte = (int)(place >> 3);
        low[row] = (uint8_t)(byte < 16 ? byte : 0x80);
        high[row] = (uint8_t)(byte < 16 ? 0x80 : byte - 16);
        bit[row] = (uint8_t)(1 << (place & 7));
    }
}

INLINE void NAME(view_columns)(const struct model *model, const double *const *features, int64_t first, int rows,
                               uint8_t *block)
{
    double numbers[ROWS] = {0};
    int64_t places[ROWS];
    uint8_t is_nan[ROWS] = {0};
    for (const struct column *column = model->column; column < model->column + model->columns; column++) {
        const struct view *view = model->view + column->view_at, *end = view + column->view_count;
        NAME(normalize)(features[column->feature] + first, rows, numbers, is_nan);
        if (column->is_category) {
            NAME(classify)(model->classes + column->at, column->count, numbers, is_nan, places);
            for (; view < end; view++) NAME(view_classes)(view, places, block);
        } else {
            NAME(rank)(model->thresholds + column->at, (int)column->count, numbers, places);
            for (; view < end; view++) NAME(view_numbers)(view, places, numbers, is_nan, block);
        }
    }
}

/* Which of the eight leaves of a plane are still possible, a byte a row. */
INLINE void NAME(prune)(const struct model *model, uint32_t plane, const uint8_t *block, UVEC *possible)
{
    UVEC left[VECTORS];
    for (int v = 0; v < VECTORS; v++) left[v] = (UVEC)NAME(splat)(-1);
    const struct cut *cut = model->over + model->over_at[plane], *end = model->over + model->over_at[plane + 1];
    for (; cut < end; cut++) {
        const VEC *bytes = (const VEC *)(block + (size_t)cut->slot * ROWS);
        VEC limit = NAME(splat)(cut->cut);
        UVEC leaves = (UVEC)NAME(splat)((int8_t)cut->leaves);
        for (int v = 0; v < VECTORS; v++) left[v] &= ~((UVEC)(bytes[v] > limit) & leaves);
    }
    cut = model->under + model->under_at[plane], end = model->under + model->under_at[plane + 1];
    for (; cut < end; cut++) {
        const VEC *bytes = (const VEC *)(block + (size_t)cut->slot * ROWS);
        VEC limit = NAME(splat)(cut->cut);
        UVEC kept = (UVEC)NAME(splat)((int8_t)~cut->leaves);
        for (int v = 0; v < VECTORS; v++) left[v] &= (UVEC)(bytes[v] > limit) | kept;
    }
    const struct pick *pick = model->pick + model->pick_at[plane], *last = model->pick + model->pick_at[plane + 1];
    for (; pick < last; pick++) {
        const UVEC *low = (const UVEC *)(block + (size_t)pick->slot * ROWS), *high = low + VECTORS,
                   *bit = high + VECTORS;
        const uint8_t *set = model->sets + pick->set_at;
        UVEC leaves = (UVEC)NAME(splat)((int8_t)pick->leaves);
        for (int v = 0; v < VECTORS; v++) {
            UVEC byte = LOOKUP(set, low[v]);
            if (pick->is_wide) byte |= LOOKUP(set + 16, high[v]);
            left[v] &= ~((UVEC)((byte & bit[v]) == bit[v]) & leaves);
        }
    }
    for (int v = 0; v < VECTORS; v++) possible[v] = left[v];
}

/* The lowest leaf that is possible, over all planes of a tree. */
INLINE void NAME(find_leaves)(const UVEC *possible, uint32_t planes, UVEC *leaf)
{
    for (int v = 0; v < VECTORS; v++) {
        UVEC byte = possible[v], index = {0}, eight = (UVEC)NAME(splat)(8), none = {0};
        for (uint32_t plane = 1; plane < planes; plane++) {
            UVEC empty = (UVEC)(byte == none);
            index += empty & eight;
            byte |= empty & possible[plane * VECTORS + v];
        }
        byte &= -byte;
        index += (UVEC)((byte & 0xF0) != none) & 4;
        index += (UVEC)((byte & 0xCC) != none) & 2;
        index += (UVEC)((byte & 0xAA) != none) & 1;
        leaf[v] = index;
    }
}

#ifndef ADD_LEAVES
INLINE void NAME(add_leaves)(const double *values, uint32_t planes, const uint8_t *leaf, double *sums)
{
    (void)planes;
    for (int row = 0; row < ROWS; row++) sums[row] += values[leaf[row]];
}
#endif

TARGET static void NAME(score)(const struct model *model, const double *const *features, int64_t first, int64_t rows,
                               uint8_t *scratch, double *output)
{
    UVEC *possible = (UVEC *)scratch;
    UVEC *leaf = possible + (size_t)model->most_planes * VECTORS;
    double *sums = (double *)(leaf + VECTORS);
    uint8_t *block = (uint8_t *)(sums + (size_t)model->outputs * ROWS);
    for (int64_t done = 0; done < rows; done += ROWS) {
        int count = (int)(rows - done < ROWS ? rows - done : ROWS);
        NAME(view_columns)(model, features, first + done, count, block);
        memset(sums, 0, (size_t)model->outputs * ROWS * sizeof *sums);
        for (uint32_t tree = 0; tree < model->trees; tree++) {
            uint32_t plane = model->plane_at[tree], planes = model->plane_at[tree + 1] - plane;
            for (uint32_t i = 0; i < planes; i++) NAME(prune)(model, plane + i, block, possible + i * VECTORS);
            NAME(find_leaves)(possible, planes, leaf);
            NAME(add_leaves)(model->values + (size_t)plane * 8, planes, (const uint8_t *)leaf,
                             sums + (size_t)(tree % model->outputs) * ROWS);
        }
        for (int row = 0; row < count; row++)
            for (uint32_t k = 0; k < model->outputs; k++)
                output[(done + row) * model->outputs + k] = sums[(size_t)k * ROWS + row];
    }
}

#undef ROWS
#undef INLINE
#undef VEC
#undef UVEC
#undef NAME
#undef WIDTH
#undef VECTORS
#undef TARGET
#undef LOOKUP
#undef ADD_LEAVES
