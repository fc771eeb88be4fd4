/* The transform of the weights, U = G g G^T, and its adjoint, dg = G^T dU G: 36 matrices from 9
 * taps, whether F(4x4, 3x3) or its polyphase form. */
#include "winograd.h"

/* F(4, 3) ------------------------------------------------------------------------------------ */

/* One over the product of a point's distances from the others. */
#define A2 (F43.a * F43.a)
#define B2 (F43.b * F43.b)
#define AT_0 (1 / (A2 * B2))
#define AT_A (1 / (2 * A2 * (A2 - B2)))
#define AT_B (1 / (2 * B2 * (B2 - A2)))

/* u = G g */
INLINE void taps_axis(vf u[6], const vf g[3])
{
    vf even_a = vfma(g[2], vset(A2 * AT_A), g[0] * vset(AT_A)), odd_a = g[1] * vset(F43.a * AT_A);
    vf even_b = vfma(g[2], vset(B2 * AT_B), g[0] * vset(AT_B)), odd_b = g[1] * vset(F43.b * AT_B);
    u[0] = g[0] * vset(AT_0);
    u[1] = even_a + odd_a;
    u[2] = even_a - odd_a;
    u[3] = even_b + odd_b;
    u[4] = even_b - odd_b;
    u[5] = g[2];
}

/* g = G^T u, the adjoint */
INLINE void taps_adjoint(vf g[3], const vf u[6])
{
    vf even_a = u[1] + u[2], odd_a = u[1] - u[2], even_b = u[3] + u[4], odd_b = u[3] - u[4];
    g[0] = vfma(u[0], vset(AT_0), vfma(even_a, vset(AT_A), even_b * vset(AT_B)));
    g[1] = vfma(odd_a, vset(F43.a * AT_A), odd_b * vset(F43.b * AT_B));
    g[2] = vfma(even_a, vset(A2 * AT_A), vfma(even_b, vset(B2 * AT_B), u[5]));
}

/* Polyphase ---------------------------------------------------------------------------------- */

/* F(4, 2) of the outer taps; the middle one stands behind. */
#define PHASE_A (1 / (2 * F42.a * (F42.a * F42.a - F42.b * F42.b)))
#define PHASE_B (1 / (2 * F42.b * (F42.b * F42.b - F42.a * F42.a)))

INLINE void phases_axis(vf u[6], const vf g[3])
{
    vf even_a = g[0] * vset(PHASE_A), odd_a = g[2] * vset(F42.a * PHASE_A);
    vf even_b = g[0] * vset(PHASE_B), odd_b = g[2] * vset(F42.b * PHASE_B);
    u[0] = odd_a + even_a;
    u[1] = odd_a - even_a;
    u[2] = odd_b + even_b;
    u[3] = odd_b - even_b;
    u[4] = g[2];
    u[5] = g[1];
}

INLINE void phases_adjoint(vf g[3], const vf u[6])
{
    vf odd_a = u[0] + u[1], even_a = u[0] - u[1], odd_b = u[2] + u[3], even_b = u[2] - u[3];
    g[0] = vfma(even_a, vset(PHASE_A), even_b * vset(PHASE_B));
    g[1] = u[5];
    g[2] = vfma(odd_a, vset(F42.a * PHASE_A), vfma(odd_b, vset(F42.b * PHASE_B), u[4]));
}

/* Both --------------------------------------------------------------------------------------- */

typedef void weight_axis(vf u[6], const vf g[3]);
typedef void weight_adjoint(vf g[3], const vf u[6]);

INLINE void transform(float *u, int64_t spot, const float *g, int64_t tap, int64_t count,
                      weight_axis *axis)
{
    for (int64_t at = 0; at < count; at += VL) {
        vf half[6][3];
        UNROLL(3)
        for (int j = 0; j < 3; j++) {
            vf d[3] = {vload(g + j * tap + at), vload(g + (3 + j) * tap + at),
                       vload(g + (6 + j) * tap + at)};
            vf t[6];
            axis(t, d);
            UNROLL(6)
            for (int i = 0; i < 6; i++)
                half[i][j] = t[i];
        }
        UNROLL(6)
        for (int i = 0; i < 6; i++) {
            vf t[6];
            axis(t, half[i]);
            UNROLL(6)
            for (int j = 0; j < 6; j++)
                vstore(u + (i * 6 + j) * spot + at, t[j]);
        }
    }
}

INLINE void transform_back(float *g, int64_t tap, const float *u, int64_t spot, int64_t count,
                           weight_adjoint *axis)
{
    for (int64_t at = 0; at < count; at += VL) {
        vf half[3][6];
        UNROLL(6)
        for (int j = 0; j < 6; j++) {
            vf t[6], d[3];
            UNROLL(6)
            for (int i = 0; i < 6; i++)
                t[i] = vload(u + (i * 6 + j) * spot + at);
            axis(d, t);
            UNROLL(3)
            for (int i = 0; i < 3; i++)
                half[i][j] = d[i];
        }
        UNROLL(3)
        for (int i = 0; i < 3; i++) {
            vf d[3];
            axis(d, half[i]);
            UNROLL(3)
            for (int j = 0; j < 3; j++)
                vstore(g + (i * 3 + j) * tap + at, d[j]);
        }
    }
}

/* u(36, count) = G g G^T, g(9, count); `spot` and `tap` floats from one row to the next. */
void KERNEL(winograd_weight)(float *u, int64_t spot, const float *g, int64_t tap, int64_t count)
{
    transform(u, spot, g, tap, count, taps_axis);
}
void KERNEL(polyphase_weight)(float *u, int64_t spot, const float *g, int64_t tap, int64_t count)
{
    transform(u, spot, g, tap, count, phases_axis);
}

/* g(9, count) = G^T u G, the adjoint. */
void KERNEL(winograd_weight_adjoint)(float *g, int64_t tap, const float *u, int64_t spot,
                                     int64_t count)
{
    transform_back(g, tap, u, spot, count, taps_adjoint);
}
void KERNEL(polyphase_weight_adjoint)(float *g, int64_t tap, const float *u, int64_t spot,
                                      int64_t count)
{
    transform_back(g, tap, u, spot, count, phases_adjoint);
}
