/* Maximum and average over windows: x (N,C,H,W), y (N,C,P,Q).
 *
 * max_pool, average_pool: P = (H + 2 padding - window) / stride + 1, and Q alike; the padding is
 * -inf for the maximum and 0 for the average. adaptive_pool: window p is rows floor(p H / P) to
 * ceil((p + 1) H / P) - 1. Computed in the layout of x, which y keeps.
 *
 * Saved by the maximum: its place in each window, a byte where the windows have at most 256
 * positions; it is the first of equal ones, and alone gets the gradient. NaN is larger than
 * everything. The average saves nothing.
 */
#include "../base/memory.h"
#include "../base/threads.h"
#include "../kernels/kernels.h"
#include "ops.h"

#include <string.h>

enum { TASK_ELEMENTS = 65536 };

/* The options of a node: enough to find the windows again. */
typedef struct {
    int64_t H, W, P, Q;
    attn_pool_options options; /* unless adaptive */
    bool adaptive, maximum;
    attn_layout layout;
} pool_parameters;

typedef struct {
    attn_pool pool;
    int32_t *bounds; /* what pool.top .. pool.right lie in */
    float *out;
    const float *in;
    char *places;
    bool maximum, gradient, blocked;
    int64_t images, task_images, in_image, out_image; /* of one block or channel each */
    int64_t place_bytes;                              /* of one such image */
} pool_job;

/* Fills from[] and to[] (count) along an axis of `size`; returns the largest window. */
static int64_t set_bounds(int32_t *from, int32_t *to, const pool_parameters *parameters, int axis)
{
    const attn_pool_options *options = &parameters->options;
    int64_t size = axis ? parameters->W : parameters->H;
    int64_t count = axis ? parameters->Q : parameters->P, largest = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t begin, end;
        if (parameters->adaptive) {
            begin = i * size / count;
            end = attn_ceil_div((i + 1) * size, count);
        } else {
            begin = i * options->stride[axis] - options->padding[axis];
            end = attn_min(begin + options->window[axis], size);
            begin = attn_max(begin, 0);
        }
        from[i] = (int32_t)begin;
        to[i] = (int32_t)end;
        largest = attn_max(largest, end - begin);
    }
    return largest;
}

/* Whether the windows lie end to end and cover the axis. */
static bool covers_once(const int32_t *from, const int32_t *to, int64_t count, int64_t size)
{
    if (count == 0 || from[0] != 0 || to[count - 1] != size)
        return false;
    for (int64_t i = 1; i < count; i++)
        if (from[i] != to[i - 1])
            return false;
    return true;
}

static bool is_halving(const pool_parameters *parameters)
{
    const attn_pool_options *options = &parameters->options;
    for (int axis = 0; axis < 2 && !parameters->adaptive; axis++)
        if (options->window[axis] != 2 || options->stride[axis] != 2 || options->padding[axis] != 0)
            return false;
    return !parameters->adaptive;
}

static attn_status start_job(pool_job *job, const pool_parameters *parameters, int64_t N, int64_t C,
                             bool gradient)
{
    int64_t H = parameters->H, W = parameters->W, P = parameters->P, Q = parameters->Q;
    *job = (pool_job){.maximum = parameters->maximum, .gradient = gradient,
                      .blocked = parameters->layout == ATTN_BLOCKED16};
    ATTN_TRY(attn_alloc((void **)&job->bounds, (size_t)(2 * (P + Q)) * sizeof(int32_t)));
    int32_t *top = job->bounds, *bottom = top + P, *left = bottom + P, *right = left + Q;
    int64_t largest = set_bounds(top, bottom, parameters, 0);
    largest *= set_bounds(left, right, parameters, 1);
    int64_t lanes = job->blocked ? ATTN_LANES : 1;
    job->pool = (attn_pool){
        .H = H, .W = W, .P = P, .Q = Q, .top = top, .bottom = bottom, .left = left, .right = right,
        .tiles = covers_once(top, bottom, P, H) && covers_once(left, right, Q, W),
        .halves = is_halving(parameters),
        .wide_index = largest > 256,
        .stream = gradient && job->blocked &&
                  N * C * H * W * (int64_t)sizeof(float) >= ATTN_STREAM_BYTES,
    };
    if (!parameters->adaptive && parameters->options.count_padding)
        job->pool.divisor = (float)(parameters->options.window[0] * parameters->options.window[1]);
    job->images = N * (C / lanes);
    job->in_image = (gradient ? P * Q : H * W) * lanes;
    job->out_image = (gradient ? H * W : P * Q) * lanes;
    job->place_bytes = P * Q * lanes * (job->pool.wide_index ? (int64_t)sizeof(int32_t) : 1);
    job->task_images = attn_max(1, TASK_ELEMENTS / attn_max(1, H * W * lanes));
    return ATTN_OK;
}

static void pool_image(const pool_job *job, int64_t image)
{
    const attn_pool *pool = &job->pool;
    float *out = job->out + image * job->out_image;
    const float *in = job->in + image * job->in_image;
    char *places = job->places ? job->places + image * job->place_bytes : NULL;
    if (job->maximum && job->gradient)
        (job->blocked ? attn_kernel->pool_max_gradient_blocked
                      : attn_kernel->pool_max_gradient_plain)(out, in, places, pool);
    else if (job->maximum)
        (job->blocked ? attn_kernel->pool_max_blocked
                      : attn_kernel->pool_max_plain)(out, places, in, pool);
    else if (job->gradient)
        (job->blocked ? attn_kernel->pool_average_gradient_blocked
                      : attn_kernel->pool_average_gradient_plain)(out, in, pool);
    else
        (job->blocked ? attn_kernel->pool_average_blocked
                      : attn_kernel->pool_average_plain)(out, in, pool);
}

static void pool_task(void *context, int64_t index, int worker)
{
    (void)worker;
    const pool_job *job = context;
    int64_t begin = index * job->task_images;
    for (int64_t i = begin; i < attn_min(begin + job->task_images, job->images); i++)
        pool_image(job, i);
}

static attn_status pool_backward(attn_node *node, attn_tensor *const *gradients, attn_tensor **dx)
{
    const pool_parameters *parameters = node->parameters;
    const attn_variable *x = node->inputs[0];
    pool_job job = {0};
    attn_tensor *dy;
    ATTN_TRY(attn_tensor_as(&dy, gradients[0], parameters->layout));
    attn_status status = ATTN_OK;
    ATTN_GOTO(attn_tensor_empty(&dx[0], 4, x->shape, parameters->layout));
    ATTN_GOTO(start_job(&job, parameters, x->shape[0], x->shape[1], true));
    job.out = attn_data(dx[0]);
    job.in = attn_data(dy);
    job.places = parameters->maximum ? (char *)attn_data(node->saved[0]) : NULL;
    attn_parallel(pool_task, &job, attn_ceil_div(job.images, job.task_images));
done:
    attn_free(job.bounds);
    attn_tensor_release(dy);
    return status;
}

static const attn_operation max_pool_op = {"max_pool2d", pool_backward, sizeof(pool_parameters)};
static const attn_operation average_pool_op = {"avg_pool2d", pool_backward,
                                               sizeof(pool_parameters)};

static attn_status run_pool(attn_tensor **y, attn_tensor *x, const pool_parameters *parameters)
{
    bool keeps_places = parameters->maximum && attn_needs_grad(1, &x);
    int64_t N = x->shape[0], C = x->shape[1];
    pool_job job = {0};
    attn_tensor *out = NULL, *places = NULL;
    attn_status status = ATTN_OK;
    /* A single position is the same memory in either layout, and PLAIN flattens for nothing. */
    attn_layout layout = parameters->P * parameters->Q == 1 ? ATTN_PLAIN : x->layout;
    ATTN_GOTO(attn_tensor_empty(&out, 4, (int64_t[]){N, C, parameters->P, parameters->Q}, layout));
    ATTN_GOTO(start_job(&job, parameters, N, C, false));
    job.out = attn_data(out);
    job.in = attn_data(x);
    if (keeps_places) {
        int64_t words = attn_ceil_div(job.images * job.place_bytes, (int64_t)sizeof(float));
        ATTN_GOTO(attn_tensor_empty(&places, 1, &words, ATTN_PLAIN));
        job.places = (char *)attn_data(places);
    }
    attn_parallel(pool_task, &job, attn_ceil_div(job.images, job.task_images));
    ATTN_GOTO(attn_record(parameters->maximum ? &max_pool_op : &average_pool_op, 1, &x, 1, &out,
                          parameters, &places, 1));
    *y = out;
    out = NULL;
done:
    attn_free(job.bounds);
    attn_tensor_release(places);
    attn_tensor_release(out);
    return status;
}

static attn_status check_image(const char *name, const attn_tensor *x)
{
    char got[160];
    if (x->ndim != 4)
        return attn_fail(ATTN_BAD_VALUE, "%s: x has shape %s, expected (N, C, H, W)", name,
                         attn_shape_text(got, x->ndim, x->shape));
    if (x->shape[2] > INT32_MAX || x->shape[3] > INT32_MAX)
        return attn_fail(ATTN_BAD_VALUE, "%s: x has shape %s, expected H and W below 2^31", name,
                         attn_shape_text(got, x->ndim, x->shape));
    return ATTN_OK;
}

static attn_status window_pool(attn_tensor **y, attn_tensor *x, const attn_pool_options *options,
                               bool maximum)
{
    const char *name = maximum ? "max_pool2d" : "avg_pool2d";
    char got[160];
    ATTN_TRY(check_image(name, x));
    int64_t size[2];
    for (int axis = 0; axis < 2; axis++) {
        const char *direction = axis ? "width" : "height";
        int64_t window = options->window[axis], stride = options->stride[axis];
        int64_t padding = options->padding[axis], length = x->shape[2 + axis];
        if (window < 1 || stride < 1 || window > INT32_MAX || stride > INT32_MAX)
            return attn_fail(ATTN_BAD_VALUE, "%s: kernel_size is %lld and stride %lld in %s, "
                             "expected 1 or more", name, (long long)window, (long long)stride,
                             direction);
        if (padding < 0 || padding > window / 2)
            return attn_fail(ATTN_BAD_VALUE, "%s: padding is %lld in %s, expected 0 to %lld, half "
                             "of kernel_size %lld", name, (long long)padding, direction,
                             (long long)(window / 2), (long long)window);
        if (length + 2 * padding < window || length == 0)
            return attn_fail(ATTN_BAD_VALUE, "%s: kernel_size is %lld in %s, expected at most "
                             "%lld: x has shape %s and padding is %lld", name, (long long)window,
                             direction, (long long)length + 2 * padding,
                             attn_shape_text(got, 4, x->shape), (long long)padding);
        size[axis] = (length + 2 * padding - window) / stride + 1;
    }
    pool_parameters parameters = {x->shape[2], x->shape[3], size[0], size[1], *options, false,
                                  maximum, x->layout};
    return run_pool(y, x, &parameters);
}

attn_status attn_max_pool(attn_tensor **y, attn_tensor *x, const attn_pool_options *options)
{
    return window_pool(y, x, options, true);
}

attn_status attn_average_pool(attn_tensor **y, attn_tensor *x, const attn_pool_options *options)
{
    return window_pool(y, x, options, false);
}

attn_status attn_adaptive_pool(attn_tensor **y, attn_tensor *x, int64_t P, int64_t Q, bool maximum)
{
    const char *name = maximum ? "adaptive_max_pool2d" : "adaptive_avg_pool2d";
    char got[160];
    ATTN_TRY(check_image(name, x));
    if (P < 1 || Q < 1 || P > INT32_MAX || Q > INT32_MAX)
        return attn_fail(ATTN_BAD_VALUE, "%s: output_size is (%lld, %lld), expected 1 or more",
                         name, (long long)P, (long long)Q);
    if (x->shape[2] == 0 || x->shape[3] == 0)
        return attn_fail(ATTN_BAD_VALUE, "%s: x has shape %s, expected H and W of 1 or more", name,
                         attn_shape_text(got, 4, x->shape));
    pool_parameters parameters = {.H = x->shape[2], .W = x->shape[3], .P = P, .Q = Q,
                                  .adaptive = true, .maximum = maximum, .layout = x->layout};
    return run_pool(y, x, &parameters);
}
