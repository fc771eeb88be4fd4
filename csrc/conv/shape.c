#include "plan.h"

static attn_status check_options(const attn_convolution_options *o)
{
    for (int a = 0; a < 2; a++) { /* the upper bounds keep sums and products within 64 bits */
        if (o->stride[a] < 1 || o->stride[a] > INT32_MAX)
            return attn_fail(ATTN_BAD_VALUE, "conv2d: stride is (%lld, %lld), expected 1 or more",
                             (long long)o->stride[0], (long long)o->stride[1]);
        if (o->padding[a] < 0 || o->padding[a] > INT32_MAX)
            return attn_fail(ATTN_BAD_VALUE, "conv2d: padding is (%lld, %lld), expected 0 or more",
                             (long long)o->padding[0], (long long)o->padding[1]);
    }
    if (o->groups < 1)
        return attn_fail(ATTN_BAD_VALUE, "conv2d: groups is %lld, expected 1 or more",
                         (long long)o->groups);
    return ATTN_OK;
}

/* Shapes of four dimensions whose channels belong together. */
static attn_status check_channels(const int64_t *x, const int64_t *weight, int64_t groups)
{
    char x_text[160], weight_text[160];
    attn_shape_text(x_text, 4, x);
    attn_shape_text(weight_text, 4, weight);
    if (x[1] % groups != 0 || weight[0] % groups != 0)
        return attn_fail(ATTN_BAD_VALUE,
                         "conv2d: groups is %lld, which must divide the channels of x %s and the "
                         "output channels of weight %s",
                         (long long)groups, x_text, weight_text);
    if (weight[1] != x[1] / groups)
        return attn_fail(ATTN_BAD_VALUE,
                         "conv2d: weight has shape %s, expected (K, %lld, R, S) for x of shape %s "
                         "and groups=%lld",
                         weight_text, (long long)(x[1] / groups), x_text, (long long)groups);
    return ATTN_OK;
}

/* Plans multiply the sizes with each other. A convolution of 2^59 products would take years; OpenBLAS
 * counts the pixels of an image, and the values below a kernel, in 31 bits. */
static attn_status check_work(const attn_conv_shape *s)
{
    int64_t unused, height = s->H + 2 * s->padding[0], width = s->W + 2 * s->padding[1];
    if (attn_count(&unused, 4, (int64_t[]){s->N, s->C, height, width}) &&
        attn_count(&unused, 7, (int64_t[]){s->N, s->C, s->K, s->R, s->S, s->P, s->Q}) &&
        s->P * s->Q <= INT32_MAX && s->C / s->groups * s->R * s->S <= INT32_MAX)
        return ATTN_OK;
    return attn_fail(ATTN_NO_MEMORY, "conv2d: x of %lld x %lld x %lld x %lld with padding=(%lld, "
                     "%lld) is more than can be computed", (long long)s->N, (long long)s->C,
                     (long long)s->H, (long long)s->W, (long long)s->padding[0],
                     (long long)s->padding[1]);
}

attn_status attn_conv_shape_find(attn_conv_shape *s, int x_ndim, const int64_t *x, int weight_ndim,
                                 const int64_t *weight, const attn_convolution_options *options)
{
    char text[160];
    if (x_ndim != 4)
        return attn_fail(ATTN_BAD_VALUE, "conv2d: x has shape %s, expected (N, C, H, W)",
                         attn_shape_text(text, x_ndim, x));
    if (weight_ndim != 4)
        return attn_fail(ATTN_BAD_VALUE,
                         "conv2d: weight has shape %s, expected (K, C/groups, R, S)",
                         attn_shape_text(text, weight_ndim, weight));
    for (int i = 0; i < 4; i++)
        if (x[i] < 0 || weight[i] < 0 || x[i] > INT32_MAX || weight[i] > INT32_MAX)
            return attn_fail(ATTN_BAD_VALUE, "conv2d: x has shape %s, expected sizes from 0 to "
                             "2^31 - 1, as of weight", attn_shape_text(text, 4, x));
    ATTN_TRY(check_options(options));
    ATTN_TRY(check_channels(x, weight, options->groups));
    *s = (attn_conv_shape){
        .N = x[0], .C = x[1], .H = x[2], .W = x[3],
        .K = weight[0], .R = weight[2], .S = weight[3],
        .stride = {options->stride[0], options->stride[1]},
        .padding = {options->padding[0], options->padding[1]},
        .groups = options->groups,
    };
    int64_t height = s->H + 2 * s->padding[0], width = s->W + 2 * s->padding[1];
    if (s->R < 1 || s->S < 1 || s->R > height || s->S > width)
        return attn_fail(ATTN_BAD_VALUE,
                         "conv2d: weight has shape %s, expected a kernel of at least 1 x 1 and at "
                         "most %lld x %lld: the images are %lld x %lld, padding=(%lld, %lld)",
                         attn_shape_text(text, 4, weight), (long long)height, (long long)width,
                         (long long)s->H, (long long)s->W, (long long)s->padding[0],
                         (long long)s->padding[1]);
    s->P = (height - s->R) / s->stride[0] + 1;
    s->Q = (width - s->S) / s->stride[1] + 1;
    return check_work(s);
}
