/* Convolutions by every engine that needs no OpenBLAS, forward and backward, against sums in double,
 * without Python: for machines that are emulated. Ends with 0, or says what is wrong. */
#include "../../csrc/base/memory.h"
#include "../../csrc/conv/plan.h"
#include "../../csrc/kernels/kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *engine;
    int64_t N, C, H, W, K, kernel, stride, padding;
} convolution;

static const convolution cases[] = {
    {"winograd", 3, 32, 9, 10, 48, 3, 1, 1},    {"winograd", 3, 16, 37, 38, 48, 3, 1, 1},
    {"winograd", 3, 32, 2, 2, 48, 3, 1, 1},     {"winograd", 130, 48, 2, 2, 16, 3, 1, 1},
    {"winograd_small", 1, 48, 7, 5, 32, 3, 1, 1}, {"polyphase", 2, 32, 13, 18, 48, 3, 2, 1},
    {"polyphase", 3, 32, 65, 66, 16, 3, 2, 1},  {"implicit_gemm", 2, 16, 14, 14, 16, 7, 3, 0},
    {"implicit_gemm", 9, 64, 4, 4, 32, 1, 1, 0}, {"implicit_gemm", 130, 16, 2, 2, 48, 3, 1, 1},
    {"stem", 2, 3, 19, 23, 48, 7, 2, 3},        {"stem", 3, 3, 32, 32, 64, 3, 1, 1},
};
enum { CASES = sizeof cases / sizeof *cases };
static const double TOLERANCE = 1e-5; /* of a root mean square */

static float draw(void)
{
    static uint64_t state = 42;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (float)(state >> 40) / (1 << 24) - 0.5f;
}

static float *drawn(int64_t count)
{
    float *values;
    if (attn_alloc((void **)&values, (size_t)count * sizeof(float)) != ATTN_OK)
        exit(2);
    for (int64_t i = 0; i < count; i++)
        values[i] = draw();
    return values;
}

static double *zeros(int64_t count)
{
    double *values = calloc((size_t)count, sizeof(double));
    if (!values)
        exit(2);
    return values;
}

/* Where channel c of pixel p stands in a tensor of so many channels and pixels. */
static int64_t at(attn_layout layout, int64_t n, int64_t c, int64_t p, int64_t C, int64_t pixels)
{
    if (layout == ATTN_PLAIN)
        return (n * C + c) * pixels + p;
    return ((n * C / ATTN_LANES + c / ATTN_LANES) * pixels + p) * ATTN_LANES + c % ATTN_LANES;
}

/* What every output, and every number of the gradients, is by the definition. */
typedef struct {
    const float *x, *weight, *dy;
    double *y, *dx, *dweight;
} definition;

static void define(const definition *d, const attn_conv_shape *s, const attn_conv_engine *engine)
{
    for (int64_t n = 0; n < s->N; n++)
        for (int64_t k = 0; k < s->K; k++)
            for (int64_t i = 0; i < s->P * s->Q; i++) {
                int64_t out = at(engine->layout_y, n, k, i, s->K, s->P * s->Q);
                for (int64_t c = 0; c < s->C; c++)
                    for (int64_t tap = 0; tap < s->R * s->S; tap++) {
                        int64_t h = i / s->Q * s->stride[0] - s->padding[0] + tap / s->S;
                        int64_t w = i % s->Q * s->stride[1] - s->padding[1] + tap % s->S;
                        if (h < 0 || h >= s->H || w < 0 || w >= s->W)
                            continue;
                        int64_t in = at(engine->layout_x, n, c, h * s->W + w, s->C, s->H * s->W);
                        int64_t u = (k * s->C + c) * s->R * s->S + tap;
                        d->y[out] += (double)d->x[in] * d->weight[u];
                        d->dx[in] += (double)d->dy[out] * d->weight[u];
                        d->dweight[u] += (double)d->dy[out] * d->x[in];
                    }
            }
}

static bool close_to(const char *what, const float *found, const double *exact, int64_t count)
{
    double difference = 0, size = 0;
    for (int64_t i = 0; i < count; i++) {
        difference += (found[i] - exact[i]) * (found[i] - exact[i]);
        size += exact[i] * exact[i];
    }
    double error = sqrt(difference / size);
    if (!(error <= TOLERANCE))
        fprintf(stderr, "wrong: %s, relative error %.2g\n", what, error);
    return error <= TOLERANCE;
}

static bool check(const convolution *c)
{
    attn_conv_shape s = {
        .N = c->N, .C = c->C, .H = c->H, .W = c->W, .K = c->K, .R = c->kernel, .S = c->kernel,
        .P = (c->H + 2 * c->padding - c->kernel) / c->stride + 1,
        .Q = (c->W + 2 * c->padding - c->kernel) / c->stride + 1,
        .stride = {c->stride, c->stride}, .padding = {c->padding, c->padding}, .groups = 1,
    };
    attn_conv_plan plan;
    bool right = attn_conv_force(c->engine) == ATTN_OK;
    attn_conv_plan_make(&plan, &s, false);
    right &= strcmp(plan.engine->name, c->engine) == 0;
    int64_t in = s.N * s.C * s.H * s.W, out = s.N * s.K * s.P * s.Q;
    int64_t taps = s.K * s.C * s.R * s.S;
    float *x = drawn(in), *weight = drawn(taps), *dy = drawn(out);
    float *y = drawn(out), *dx = drawn(in), *dweight = drawn(taps);
    definition d = {x, weight, dy, zeros(out), zeros(in), zeros(taps)};
    define(&d, &s, plan.engine);
    attn_conv_input input = {.data = x};
    attn_finish finish = {0};
    attn_conv_gradients gradients = {
        .dx = dx, .dweight = dweight, .x = input, .dy = dy, .weight = weight,
    };
    right &= attn_conv_forward(&plan, y, &input, weight, &finish) == ATTN_OK;
    right &= attn_conv_backward(&plan, &gradients) == ATTN_OK;
    right &= close_to("output", y, d.y, out);
    right &= close_to("gradient of the input", dx, d.dx, in);
    right &= close_to("gradient of the weights", dweight, d.dweight, taps);
    float *floats[] = {x, weight, dy, y, dx, dweight};
    for (int i = 0; i < 6; i++)
        attn_free(floats[i]);
    free(d.y), free(d.dx), free(d.dweight);
    return right;
}

int main(void)
{
    int wrong = attn_isa_select("baseline") != ATTN_OK;
    for (int i = 0; i < CASES; i++)
        if (!check(&cases[i])) {
            const convolution *c = &cases[i];
            fprintf(stderr, "wrong: %s, %dx%dx%dx%d\n", c->engine, (int)c->N, (int)c->C, (int)c->H,
                    (int)c->W);
            wrong++;
        }
    printf("%d convolutions, %d wrong\n", CASES, wrong);
    return wrong != 0;
}
