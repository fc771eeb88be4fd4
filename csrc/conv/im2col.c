/* The convolution that fits every shape: groups, odd channel counts, one channel. Row-major
 * tensors; the patches of one image become the columns of a matrix, and OpenBLAS multiplies.
 *
 *   forward          y(Kg, P Q) = weight(Kg, Cg R S) columns(Cg R S, P Q)     an image, a group
 *   input gradient   columns = weight^T dy, added back to where they came from
 *   weight gradient  dweight += dy columns^T, partial sums over parts of the batch
 *
 * Memory: partial sums of the weight gradient (shared); the columns of one group (each worker).
 */
#include "../base/blas.h"
#include "plan.h"

#include <string.h>

typedef struct {
    const attn_conv_plan *plan;
    const attn_conv_workspace *space;
    float *y;
    const float *x, *weight;
    const attn_finish *finish;
    const attn_conv_gradients *operands;
} job;

/* Sizes of one group of one image. */
typedef struct {
    int64_t channels, outputs, depth, pixels, input, output, weight;
} group_size;

static group_size size_of_group(const attn_conv_shape *s)
{
    group_size g = {.channels = s->C / s->groups, .outputs = s->K / s->groups};
    g.depth = g.channels * s->R * s->S;
    g.pixels = s->P * s->Q;
    g.input = g.channels * s->H * s->W;
    g.output = g.outputs * g.pixels;
    g.weight = g.outputs * g.depth;
    return g;
}

/* A 1x1 kernel that steps over every pixel: the image is its own matrix of columns. */
static bool is_matrix_product(const attn_conv_shape *s)
{
    return s->R == 1 && s->S == 1 && s->stride[0] == 1 && s->stride[1] == 1 && s->padding[0] == 0 &&
           s->padding[1] == 0;
}

/* columns(channels R S, P Q) of x(channels, H, W); or, where `add_back`, x += the columns. */
static void image_columns(float *columns, float *x, const attn_conv_shape *s, int64_t channels,
                          bool add_back)
{
    for (int64_t d = 0; d < channels * s->R * s->S; d++, columns += s->P * s->Q) {
        int64_t row = d / s->S % s->R - s->padding[0], column = d % s->S - s->padding[1];
        int64_t step = s->stride[1];
        attn_range lines = attn_conv_inside(row, s->stride[0], s->H, s->P);
        attn_range inside = attn_conv_inside(column, step, s->W, s->Q);
        if (!add_back)
            memset(columns, 0, (size_t)(s->P * s->Q) * sizeof(float));
        for (int64_t p = lines.begin; p < lines.end; p++) {
            float *line = columns + p * s->Q;
            float *image = x + (d / (s->R * s->S) * s->H + p * s->stride[0] + row) * s->W + column;
            if (add_back)
                for (int64_t q = inside.begin; q < inside.end; q++)
                    image[q * step] += line[q];
            else
                for (int64_t q = inside.begin; q < inside.end; q++)
                    line[q] = image[q * step];
        }
    }
}

static void finish_image(float *y, const attn_conv_shape *s, attn_finish finish)
{
    for (int64_t k = 0, i = 0; k < s->K; k++)
        for (int64_t end = i + s->P * s->Q; i < end; i++) {
            float v = y[i] + (finish.bias ? finish.bias[k] : 0.0f);
            if (finish.residual)
                v += finish.residual[i];
            y[i] = finish.relu && v < 0.0f ? 0.0f : v; /* NaN stays */
        }
}

static void forward_image(void *context, int64_t n, int worker)
{
    const job *j = context;
    const attn_conv_shape *s = &j->plan->shape;
    group_size size = size_of_group(s);
    float *buffer = attn_conv_scratch(j->space, worker);
    int64_t output = n * s->groups * size.output;
    for (int64_t g = 0; g < s->groups; g++) {
        const float *columns = j->x + (n * s->groups + g) * size.input;
        if (!is_matrix_product(s)) {
            image_columns(buffer, (float *)columns, s, size.channels, false);
            columns = buffer;
        }
        attn_sgemm(false, false, size.outputs, size.pixels, size.depth, 1.0f,
                   j->weight + g * size.weight, size.depth, columns, size.pixels, 0.0f,
                   j->y + output + g * size.output, size.pixels);
    }
    if (!attn_finish_is_empty(j->finish))
        finish_image(j->y + output, s, attn_finish_at(j->finish, 0, output));
}

static void backward_group(const job *j, int64_t n, int64_t g, float *sums, bool first,
                           float *buffer)
{
    const attn_conv_shape *s = &j->plan->shape;
    const attn_conv_gradients *o = j->operands;
    group_size size = size_of_group(s);
    int64_t input = (n * s->groups + g) * size.input;
    const float *dy = o->dy + (n * s->groups + g) * size.output;
    bool direct = is_matrix_product(s);
    if (o->dweight) {
        const float *columns = o->x.data + input;
        if (!direct) {
            image_columns(buffer, (float *)columns, s, size.channels, false);
            columns = buffer;
        }
        attn_sgemm(false, true, size.outputs, size.depth, size.pixels, 1.0f, dy, size.pixels,
                   columns, size.pixels, first ? 0.0f : 1.0f, sums + g * size.weight, size.depth);
    }
    if (o->dx) {
        float *columns = direct ? o->dx + input : buffer;
        attn_sgemm(true, false, size.depth, size.pixels, size.outputs, 1.0f,
                   o->weight + g * size.weight, size.depth, dy, size.pixels, 0.0f, columns,
                   size.pixels);
        if (!direct) {
            memset(o->dx + input, 0, (size_t)size.input * sizeof(float));
            image_columns(buffer, o->dx + input, s, size.channels, true);
        }
    }
}

/* A part of the batch: the images' input gradients, and their sum for the weights. */
static void backward_part(void *context, int64_t part, int worker)
{
    const job *j = context;
    const attn_conv_plan *plan = j->plan;
    const attn_conv_shape *s = &plan->shape;
    float *buffer = attn_conv_scratch(j->space, worker);
    float *sums = j->space->shared + part * s->groups * size_of_group(s).weight;
    int64_t begin = s->N * part / plan->parts, end = s->N * (part + 1) / plan->parts;
    for (int64_t n = begin; n < end; n++)
        for (int64_t g = 0; g < s->groups; g++)
            backward_group(j, n, g, sums, n == begin, buffer);
}

static void forward(const attn_conv_plan *plan, const attn_conv_workspace *space, float *y,
                    const attn_conv_input *x, const float *weight, const attn_finish *finish)
{
    job j = {.plan = plan, .space = space, .y = y, .x = x->data, .weight = weight,
             .finish = finish};
    attn_conv_parallel(space, forward_image, &j, plan->shape.N);
}

static void backward(const attn_conv_plan *plan, const attn_conv_workspace *space,
                     const attn_conv_gradients *operands)
{
    job j = {.plan = plan, .space = space, .operands = operands};
    attn_conv_parallel(space, backward_part, &j, plan->parts);
    if (!operands->dweight)
        return;
    int64_t size = plan->shape.groups * size_of_group(&plan->shape).weight;
    for (int64_t i = 0; i < size; i++) {
        float sum = space->shared[i];
        for (int64_t part = 1; part < plan->parts; part++)
            sum += space->shared[part * size + i];
        operands->dweight[i] = sum;
    }
}

static bool fits(const attn_conv_shape *s)
{
    (void)s;
    return true;
}
static bool suits(const attn_conv_shape *s, bool keep)
{
    (void)keep;
    return fits(s);
}

static void make_plan(attn_conv_plan *plan)
{
    const attn_conv_shape *s = &plan->shape;
    group_size size = size_of_group(s);
    int64_t columns = is_matrix_product(s) ? 0 : size.depth * size.pixels;
    plan->parts = attn_conv_parts(s->groups * size.weight, s->N);
    plan->splits = 1;
    plan->forward = (attn_conv_pass){.block = 1, .worker = columns};
    plan->backward = (attn_conv_pass){
        .block = 1, .shared = plan->parts * s->groups * size.weight, .worker = columns};
}

const attn_conv_engine attn_conv_im2col = {
    "im2col", ATTN_PLAIN, ATTN_PLAIN, false, fits, suits, make_plan, NULL, forward, backward,
};
