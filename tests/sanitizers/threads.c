/* The thread pool, the allocator, the profile and the loader's C part, without Python, for
 * ThreadSanitizer: several threads use all of them at once while another changes the number of
 * threads. Every result is compared with that of one thread. Ends with 0, or says what is wrong. */
#include "../../csrc/base/memory.h"
#include "../../csrc/base/profile.h"
#include "../../csrc/base/random.h"
#include "../../csrc/base/threads.h"
#include "../../csrc/data/augment.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { USERS = 3, ROUNDS = 150, TASKS = 64, LENGTH = 500 };
enum { IMAGES = 40, C = 3, SIDE = 12, BATCH = 24 };

static _Atomic int wrong;
static _Atomic bool finished;

static void expect(bool truth, const char *what)
{
    if (!truth) {
        wrong++;
        fprintf(stderr, "wrong: %s\n", what);
    }
}

/* Each task fills its own part, with a call of the pool from inside a task now and then. */
typedef struct {
    int64_t *values;
    int64_t factor;
    bool nested;
} fill_job;

static void fill_inner(void *context, int64_t index, int worker)
{
    (void)worker;
    int64_t *value = context;
    value[index] += index;
}

static void fill_task(void *context, int64_t index, int worker)
{
    const fill_job *job = context;
    expect(worker >= 0 && worker < ATTN_MAX_THREADS, "the worker's number");
    int64_t *mine = job->values + index * LENGTH;
    for (int i = 0; i < LENGTH; i++)
        mine[i] = job->factor * index;
    if (job->nested)
        attn_parallel(fill_inner, mine, LENGTH);
}

static void use_pool(int64_t round)
{
    void *block;
    attn_status status = attn_alloc(&block, TASKS * LENGTH * sizeof(int64_t));
    expect(status == ATTN_OK, "an allocation");
    if (status != ATTN_OK)
        return;
    fill_job job = {block, round, round % 3 == 0};
    if (round % 2)
        attn_parallel(fill_task, &job, TASKS);
    else
        attn_parallel_within(2, fill_task, &job, TASKS);
    for (int64_t i = 0; i < TASKS * LENGTH; i++) {
        int64_t wanted = round * (i / LENGTH) + (job.nested ? i % LENGTH : 0);
        if (job.values[i] != wanted) {
            expect(false, "a task's values");
            break;
        }
    }
    attn_free(block);
}

/* A batch of the loader, its images shared among the pool's threads. */
typedef struct {
    float *out;
    const uint8_t *images;
    const int64_t *indices;
    const float *table;
    attn_augmentation how;
} batch_job;

static uint8_t images[IMAGES * C * SIDE * SIDE];
static float table[C * 256];

static void batch_task(void *context, int64_t index, int worker)
{
    (void)worker;
    const batch_job *job = context;
    attn_augment_batch(job->out + index * C * SIDE * SIDE, job->images, job->indices + index,
                       job->table, &job->how, 1, C, SIDE, SIDE);
}

static void use_loader(int64_t round)
{
    static _Thread_local float shared[BATCH * C * SIDE * SIDE], alone[BATCH * C * SIDE * SIDE];
    int64_t order[IMAGES];
    attn_random_permutation(order, IMAGES, 7, (uint64_t)round);
    batch_job job = {shared, images, order, table,
                     {.padding = 2, .reflect = round % 2 == 0, .flip = 0.5,
                      .alternate = round % 3 == 0, .cutout = 4, .seed = 7,
                      .epoch = (uint64_t)round}};
    attn_parallel(batch_task, &job, BATCH);
    attn_augment_batch(alone, images, order, table, &job.how, BATCH, C, SIDE, SIDE);
    expect(memcmp(shared, alone, sizeof shared) == 0, "a batch");
}

static void use_profile(void)
{
    attn_profile_event *events, event = {.name = "test", .begin = attn_profile_now()};
    int64_t lost;
    if (event.begin)
        attn_profile_add(&event);
    if (attn_profile_start() == ATTN_OK) {
        attn_profile_stop(&events, &lost);
        free(events);
    }
}

static void *user(void *argument)
{
    for (int64_t round = 1; round <= ROUNDS; round++) {
        use_pool(round + *(int *)argument);
        use_loader(round);
        use_profile();
        attn_memory_stats stats;
        attn_memory_get_stats(&stats);
        expect(stats.in_use >= 0, "the bytes in use");
    }
    return NULL;
}

static void *changer(void *unused)
{
    (void)unused;
    for (int i = 0; !finished; i++) {
        attn_set_num_threads(1 + i % 4);
        attn_memory_empty_cache();
    }
    return NULL;
}

int main(void)
{
    static const float mean[C] = {0.4f, 0.5f, 0.6f}, std[C] = {0.2f, 0.25f, 0.3f};
    for (size_t i = 0; i < sizeof images; i++)
        images[i] = (uint8_t)(i * 37);
    attn_normalisation_table(table, mean, std, C);
    attn_set_num_threads(4);
    pthread_t threads[USERS], other;
    int numbers[USERS];
    pthread_create(&other, NULL, changer, NULL);
    for (int i = 0; i < USERS; i++) {
        numbers[i] = i;
        pthread_create(&threads[i], NULL, user, &numbers[i]);
    }
    for (int i = 0; i < USERS; i++)
        pthread_join(threads[i], NULL);
    finished = true;
    pthread_join(other, NULL);
    attn_memory_stats stats;
    attn_memory_get_stats(&stats);
    expect(stats.in_use == 0, "all bytes were given back");
    printf("%d threads, %d rounds: %d wrong\n", USERS, ROUNDS, wrong);
    return wrong != 0;
}
