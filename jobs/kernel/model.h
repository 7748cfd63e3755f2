/* A model as the kernel reads it: flat arrays, filled in by layout.py, whose dtypes mirror these structs. */

#ifndef ALMANAC_MODEL_H
#define ALMANAC_MODEL_H

#include <stdint.h>

/* Raised with every change of a struct or of a function's arguments: native.py loads no other. */
#define ALMANAC_KERNEL_VERSION 1

enum missing { MISSING_NONE, MISSING_ZERO, MISSING_NAN };
enum output { OUTPUT_RAW, OUTPUT_SIGMOID, OUTPUT_SOFTMAX, OUTPUT_EXP, OUTPUT_LOG1P_EXP, OUTPUT_SIGNED_SQUARE };

/* A feature that some split looks at. Its place is its rank among the thresholds, or the class of its category. */
struct column {
    uint32_t feature;
    uint32_t is_category;
    uint32_t at;     /* in `thresholds` or in `classes` */
    uint32_t count;  /* a number: halvings of the search, over 2^count - 1 padded thresholds; a category: their number */
    uint32_t view_at, view_count;
};

/* One byte a row of a column, for up to 255 thresholds or classes of it and one treatment of what is missing. */
struct view {
    uint32_t base;  /* the first threshold, or the class before the first, that it tells apart */
    uint8_t missing, default_left;
    uint16_t slot;  /* where its bytes are, in units of a block's rows */
};

/* Rows whose byte is above `cut` (in `over`), or is not (in `under`), lose `leaves` of one plane. */
struct cut {
    uint16_t slot;
    int8_t cut;
    uint8_t leaves;
};

/* Rows whose class is in the set lose `leaves`. The class's place in a set takes three slots. */
struct pick {
    uint32_t set_at;
    uint16_t slot;
    uint8_t leaves, is_wide; /* wide: of more than 128 classes */
};

struct model {
    uint32_t columns, slots, trees, outputs, most_planes, output;
    const struct column *column;
    const struct view *view;
    const double *thresholds;
    const uint16_t *classes;
    const uint32_t *plane_at; /* of each tree, and of the end */
    const uint32_t *over_at, *under_at, *pick_at; /* of each plane, and of the end */
    const struct cut *over, *under;
    const struct pick *pick;
    const uint8_t *sets; /* 32 bytes each: a bit a class */
    const double *values; /* eight a plane: of its leaves, from the left */
    double average; /* 0: the sum of the trees, else what it is divided by */
    double sigmoid;
};

typedef void score_rows(const struct model *, const double *const *, int64_t, int64_t, uint8_t *, double *);

#endif
