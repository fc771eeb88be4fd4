/* The transform of the weights, U = G g G^T, and its adjoint, dg = G^T dU G. */
#include "winograd.h"

/* One over the product of a point's distances from the others. */
#define AT_0 (1 / (PA2 * PB2))
#define AT_A (1 / (2 * PA2 * (PA2 - PB2)))
#define AT_B (1 / (2 * PB2 * (PB2 - PA2)))

/* u = G g */
INLINE void weight_axis(vf u[6], const vf g[3])
{
    vf even_a = vfma(g[2], vset(PA2 * AT_A), g[0] * vset(AT_A)), odd_a = g[1] * vset(PA * AT_A);
    vf even_b = vfma(g[2], vset(PB2 * AT_B), g[0] * vset(AT_B)), odd_b = g[1] * vset(PB * AT_B);
    u[0] = g[0] * vset(AT_0);
    u[1] = even_a + odd_a;
    u[2] = even_a - odd_a;
    u[3] = even_b + odd_b;
    u[4] = even_b - odd_b;
    u[5] = g[2];
}

/* g = G^T u, the adjoint */
INLINE void weight_axis_adjoint(vf g[3], const vf u[6])
{
    vf even_a = u[1] + u[2], odd_a = u[1] - u[2], even_b = u[3] + u[4], odd_b = u[3] - u[4];
    g[0] = vfma(u[0], vset(AT_0), vfma(even_a, vset(AT_A), even_b * vset(AT_B)));
    g[1] = vfma(odd_a, vset(PA * AT_A), odd_b * vset(PB * AT_B));
    g[2] = vfma(even_a, vset(PA2 * AT_A), vfma(even_b, vset(PB2 * AT_B), u[5]));
}

/* u(36, count) = G g G^T, g(9, count); `spot` and `tap` floats from one row to the next. */
void KERNEL(winograd_weight)(float *u, int64_t spot, const float *g, int64_t tap, int64_t count)
{
    for (int64_t at = 0; at < count; at += VL) {
        vf half[6][3];
        UNROLL(3)
        for (int j = 0; j < 3; j++) {
            vf d[3] = {vload(g + j * tap + at), vload(g + (3 + j) * tap + at),
                       vload(g + (6 + j) * tap + at)};
            vf t[6];
            weight_axis(t, d);
            UNROLL(6)
            for (int i = 0; i < 6; i++)
                half[i][j] = t[i];
        }
        UNROLL(6)
        for (int i = 0; i < 6; i++) {
            vf t[6];
            weight_axis(t, half[i]);
            UNROLL(6)
            for (int j = 0; j < 6; j++)
                vstore(u + (i * 6 + j) * spot + at, t[j]);
        }
    }
}

/* g(9, count) = G^T u G, the adjoint. */
void KERNEL(winograd_weight_adjoint)(float *g, int64_t tap, const float *u, int64_t spot,
                                     int64_t count)
{
    for (int64_t at = 0; at < count; at += VL) {
        vf half[3][6];
        UNROLL(6)
        for (int j = 0; j < 6; j++) {
            vf t[6], d[3];
            UNROLL(6)
            for (int i = 0; i < 6; i++)
                t[i] = vload(u + (i * 6 + j) * spot + at);
            weight_axis_adjoint(d, t);
            UNROLL(3)
            for (int i = 0; i < 3; i++)
                half[i][j] = d[i];
        }
        UNROLL(3)
        for (int i = 0; i < 3; i++) {
            vf d[3];
            weight_axis_adjoint(d, half[i]);
            UNROLL(3)
            for (int j = 0; j < 3; j++)
                vstore(g + (i * 3 + j) * tap + at, d[j]);
        }
    }
}
