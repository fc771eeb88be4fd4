/* The convolution engines behind one seam: plan (which engine, in which pieces, how much memory),
 * then run (forward; backward for one or both gradients). Weights that serve many calls are packed
 * in between, once, into the form that the plan's forward pass reads (conv/kept.h).
 *
 *   winograd       3x3, stride 1: F(4x4, 3x3), a quarter of the multiplications; for images of 2x2
 *                  pixels a form of its own, with nine sixteenths of those that meet a pixel
 *   winograd_small 3x3, stride 1, a few pixels: F(2x2, 3x3), four ninths
 *   polyphase      3x3, stride 2: Winograd's way where pixels meet two taps, nine sixteenths
 *   implicit_gemm  any kernel and stride between blocked tensors: a matrix product whose left
 *                  operand is gathered from the image in pieces that stay in the cache
 *   stem           few input channels (the image itself), blocked output
 *   im2col         everything else: groups, odd channel counts
 *
 * A plan depends on the shape and the instruction set, never on the number of threads: how the work
 * is cut decides the order of the sums, and so the bits of the result.
 */
#ifndef ATTN_CONV_PLAN_H
#define ATTN_CONV_PLAN_H

#include "../base/threads.h"
#include "../kernels/types.h"
#include "../ops/normalise.h"

typedef struct {
    int64_t N, C, H, W; /* input */
    int64_t K, R, S;    /* output channels, kernel */
    int64_t P, Q;       /* output */
    int64_t stride[2], padding[2], groups;
} attn_conv_shape;

/* The form in which a forward pass reads the weights. */
typedef enum {
    ATTN_FORM_PLAIN,     /* (K, C/groups, R, S), as they come */
    ATTN_FORM_PANELS,    /* [panel][tap][C][width]; stem: [panel][c, r, s][width] */
    ATTN_FORM_STRIPS,    /* [panel][C / 16][tap][16][width]: to be transformed at each call */
    ATTN_FORM_WINOGRAD,  /* transformed: U of conv/winograd.h */
    ATTN_FORM_POLYPHASE, /* the same at stride 2 */
    ATTN_FORM_PAIR,      /* the same for images of 2 x 2 pixels */
    ATTN_FORMS,
} attn_conv_form;

/* How one pass is cut into tasks, and the memory it takes. */
typedef struct {
    int64_t block;    /* rows of a matrix product (pixels, tiles, images) that one task holds */
    int64_t tile;     /* of Winograd's algorithms: outputs along a side */
    bool by_channels; /* tasks are channels, not images: small images with many channels */
    int64_t shared;   /* floats, for all workers together */
    int64_t worker;   /* floats, for each of them alone */
} attn_conv_pass;

/* The memory itself. */
typedef struct {
    float *shared, *scratch;
    int64_t worker_size;
    int workers;
} attn_conv_workspace;

static inline float *attn_conv_scratch(const attn_conv_workspace *space, int worker)
{
    return space->scratch + worker * space->worker_size;
}
static inline void attn_conv_parallel(const attn_conv_workspace *space, attn_task task,
                                      void *context, int64_t count)
{
    attn_parallel_within(space->workers, task, context, count);
}

typedef struct attn_conv_engine attn_conv_engine;

typedef struct {
    attn_conv_shape shape;
    const attn_conv_engine *engine;
    bool keep;           /* the weights are those of many calls: choose a form worth keeping */
    attn_conv_form form; /* PLAIN unless `keep` */
    int64_t form_size;   /* floats; 0 where PLAIN */
    attn_conv_pass forward, backward;
    int64_t parts;  /* partial sums of the weight gradient */
    int64_t splits; /* further tasks that each part is cut into */
} attn_conv_plan;

/* The input of a convolution, which may not be there as such: with constants (ops/normalise.h) it
 * is relu of the normalised `data`. */
typedef struct {
    const float *data;
    const float *constants; /* NULL: the data itself */
} attn_conv_input;

/* Operands of a backward pass. dx or dweight may be NULL: not wanted. All are overwritten, but dx
 * only unless `add`, which an engine that normalises understands as well. */
typedef struct {
    float *dx, *dweight;
    bool add; /* to dx */
    attn_conv_input x;
    const float *dy, *weight;
    /* NULL, or dy is the gradient behind a batch norm of y: the convolution's own is what
     * attn_norm_backward makes of it, with these constants. */
    const attn_norm_gradient *norm;
    const float *constants;
} attn_conv_gradients;

struct attn_conv_engine {
    const char *name;
    attn_layout layout_x, layout_y;
    bool normalises; /* takes inputs and gradients that are to be made on the way */
    bool (*fits)(const attn_conv_shape *shape);  /* can it be done */
    /* Should it, where the engine is free to choose? */
    bool (*suits)(const attn_conv_shape *shape, bool keep);
    void (*plan)(attn_conv_plan *plan); /* fills what stands below `keep` there */
    /* Plain weights into the plan's form; NULL where an engine reads no other. */
    void (*pack)(const attn_conv_plan *plan, float *packed, const float *weight);
    void (*forward)(const attn_conv_plan *plan, const attn_conv_workspace *space, float *y,
                    const attn_conv_input *x, const float *weight, const attn_finish *finish);
    void (*backward)(const attn_conv_plan *plan, const attn_conv_workspace *space,
                     const attn_conv_gradients *operands);
};

extern const attn_conv_engine attn_conv_winograd_small, attn_conv_winograd, attn_conv_polyphase,
    attn_conv_implicit_gemm, attn_conv_stem, attn_conv_im2col;

/* The sizes of all operands from the shapes of x and weight, or what is wrong with them. */
attn_status attn_conv_shape_find(attn_conv_shape *s, int x_ndim, const int64_t *x, int weight_ndim,
                                 const int64_t *weight, const attn_convolution_options *options);

/* Every shape has a plan: im2col fits all. N, P and Q may be 0. */
void attn_conv_plan_make(attn_conv_plan *plan, const attn_conv_shape *shape, bool keep);

/* Prefers the engine of this name wherever it fits; NULL or "": the plan's own choice again. */
attn_status attn_conv_force(const char *name);
/* The names in order of preference, NULL at the end. */
const char *attn_conv_engine_name(int index);

/* weight: in the plan's form. */
attn_status attn_conv_forward(const attn_conv_plan *plan, float *y, const attn_conv_input *x,
                              const float *weight, const attn_finish *finish);
attn_status attn_conv_backward(const attn_conv_plan *plan, const attn_conv_gradients *operands);

/* For engines -------------------------------------------------------------------------------- */

/* So few outputs that weights which are kept are best read once, as they are: F(4x4, 3x3) reads four
 * times as much, or takes longer to transform them at each call than its products save. */
enum { ATTN_FEW_PIXELS = 64 };
static inline bool attn_conv_is_small(const attn_conv_shape *s)
{
    return s->N * s->P * s->Q <= ATTN_FEW_PIXELS;
}

/* The width of panel `index` of a matrix with `columns` columns (a multiple of 16). */
static inline int64_t attn_panel_width(int64_t columns, int64_t index)
{
    return attn_min(ATTN_PANEL, columns - index * ATTN_PANEL);
}

/* Whether a tensor of so many floats is gone from the cache before it is read again. */
static inline bool attn_conv_stream(int64_t size) { return size > 2 << 20; }

/* The finish of a channel block: from bias `channel` on, residual `offset` floats further. */
static inline attn_finish attn_finish_at(const attn_finish *f, int64_t channel, int64_t offset)
{
    return (attn_finish){f->bias ? f->bias + channel : NULL,
                         f->residual ? f->residual + offset : NULL, f->relu, f->stream};
}
static inline bool attn_finish_is_empty(const attn_finish *f)
{
    return !f->bias && !f->residual && !f->relu;
}

typedef struct {
    int64_t begin, end;
} attn_range;

/* The outputs i along one axis that read inside the image: 0 <= i * stride + offset < size. */
attn_range attn_conv_inside(int64_t offset, int64_t stride, int64_t size, int64_t count);

/* Into how many partial sums of `size` floats a reduction over `items` may be cut. */
int64_t attn_conv_parts(int64_t size, int64_t items);

#endif
