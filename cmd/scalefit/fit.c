/* Least squares by lines, parabolas and any smooth function, and Student's t. */
#include <math.h>
#include <stdlib.h>
#include "scalefit.h"

void line_fit(Line *l, const double *x, const double *y, int n)
{
    double mx = 0, my = 0, sxx = 0, sxy = 0, syy = 0, rest = 0;
    for (int i = 0; i < n; i++) {
        mx += x[i] / n;
        my += y[i] / n;
    }
    for (int i = 0; i < n; i++) {
        sxx += (x[i] - mx) * (x[i] - mx);
        sxy += (x[i] - mx) * (y[i] - my);
        syy += (y[i] - my) * (y[i] - my);
    }
    *l = (Line){.slope = sxy / sxx, .mean_x = mx, .sxx = sxx, .points = n};
    l->intercept = my - l->slope * mx;
    for (int i = 0; i < n; i++) {
        double e = y[i] - l->intercept - l->slope * x[i];
        rest += e * e;
    }
    l->r2 = 1 - rest / syy;
    l->residual = n > 2 ? sqrt(rest / (n - 2)) : NAN;
    l->slope_error = l->residual / sqrt(sxx);
    l->intercept_error = l->residual * sqrt(1.0 / n + mx * mx / sxx);
}

/* P(|T| < t) for n degrees of freedom (Abramowitz and Stegun 26.7.3, 26.7.4). */
static double t_inside(double t, int n)
{
    double theta = atan(t / sqrt(n)), c = cos(theta), s = sin(theta), sum, term;
    if (n % 2) {
        sum = 0;
        term = c;
        for (int k = 1; k < n; k += 2) {
            sum += term;
            term *= c * c * (k + 1) / (k + 2);
        }
        return 2 / M_PI * (theta + s * sum);
    }
    sum = 0;
    term = 1;
    for (int k = 0; k < n - 1; k += 2) {
        sum += term;
        term *= c * c * (k + 1) / (k + 2);
    }
    return s * sum;
}

double t_quantile95(int degrees)
{
    if (degrees < 1)
        return INFINITY;
    double low = 0, high = 1000;
    for (int i = 0; i < 100; i++) {
        double middle = (low + high) / 2;
        if (t_inside(middle, degrees) < 0.95)
            low = middle;
        else
            high = middle;
    }
    return low;
}

double line_interval(const Line *l, double x)
{
    return t_quantile95(l->points - 2) * l->residual * sqrt(1 + 1.0 / l->points + (x - l->mean_x) * (x - l->mean_x) / l->sxx);
}

void line_band(const Line *l, double low, double high, int n, double *x, double *y, double *under, double *over)
{
    for (int k = 0; k < n; k++) {
        double z = log10(low) + (log10(high) - log10(low)) * k / (n - 1), at = l->intercept + l->slope * z, half = line_interval(l, z);
        x[k] = pow(10, z);
        y[k] = pow(10, at);
        under[k] = pow(10, at - half);
        over[k] = pow(10, at + half);
    }
}

bool matrix_solve(double *a, double *b, int n, int columns)
{
    for (int j = 0; j < n; j++) {
        int pivot = j;
        for (int k = j + 1; k < n; k++)
            pivot = fabs(a[k * n + j]) > fabs(a[pivot * n + j]) ? k : pivot;
        if (!(fabs(a[pivot * n + j]) > 0))
            return false;
        for (int k = 0; k < n; k++) {
            double swap = a[j * n + k];
            a[j * n + k] = a[pivot * n + k];
            a[pivot * n + k] = swap;
        }
        for (int k = 0; k < columns; k++) {
            double swap = b[j * columns + k];
            b[j * columns + k] = b[pivot * columns + k];
            b[pivot * columns + k] = swap;
        }
        for (int i = 0; i < n; i++) {
            double by = i == j ? 0 : a[i * n + j] / a[j * n + j];
            for (int k = j; k < n && by != 0; k++)
                a[i * n + k] -= by * a[j * n + k];
            for (int k = 0; k < columns && by != 0; k++)
                b[i * columns + k] -= by * b[j * columns + k];
        }
    }
    for (int j = 0; j < n; j++)
        for (int k = 0; k < columns; k++)
            b[j * columns + k] /= a[j * n + j];
    return true;
}

void parabola_fit(const double *x, const double *y, int n, double c[3])
{
    double mean = 0, a[9] = {0}, b[3] = {0};
    for (int i = 0; i < n; i++)
        mean += x[i] / n;
    for (int i = 0; i < n; i++) {
        double p[3] = {1, x[i] - mean, (x[i] - mean) * (x[i] - mean)};
        for (int j = 0; j < 3; j++) {
            for (int k = 0; k < 3; k++)
                a[3 * j + k] += p[j] * p[k];
            b[j] += p[j] * y[i];
        }
    }
    matrix_solve(a, b, 3, 1);
    c[2] = b[2];
    c[1] = b[1] - 2 * b[2] * mean;
    c[0] = b[0] - b[1] * mean + b[2] * mean * mean;
}

double least_squares(ResidualFunction f, const void *context, double *x, int n, int count, int iterations)
{
    size_t size = (size_t)n * (size_t)n;
    double *residual = memory_alloc((size_t)count, sizeof *residual), *jacobian = memory_alloc((size_t)(count * n), sizeof *jacobian);
    double *next = memory_alloc((size_t)n, sizeof *next), *a = memory_alloc(size, sizeof *a), *damped = memory_alloc(size, sizeof *damped);
    double *g = memory_alloc((size_t)n, sizeof *g), *step = memory_alloc((size_t)n, sizeof *step), damping = 1e-3, sum = 0;
    int still = 0;
    f(context, x, residual, jacobian);
    for (int i = 0; i < count; i++)
        sum += residual[i] * residual[i];
    for (int round = 0; round < iterations && still < 3; round++) {
        for (int j = 0; j < n; j++) {
            g[j] = 0;
            for (int k = 0; k <= j; k++)
                a[j * n + k] = 0;
        }
        for (int i = 0; i < count; i++)
            for (int j = 0; j < n; j++) {
                g[j] -= jacobian[i * n + j] * residual[i];
                for (int k = 0; k <= j; k++)
                    a[j * n + k] += jacobian[i * n + j] * jacobian[i * n + k];
            }
        double better = NAN;
        for (int tries = 0; tries < 40 && !(better <= sum); tries++) {
            for (int j = 0; j < n; j++)
                for (int k = 0; k < n; k++)
                    damped[j * n + k] = a[j > k ? j * n + k : k * n + j] * (j == k ? 1 + damping : 1) + (j == k ? 1e-12 : 0);
            for (int j = 0; j < n; j++)
                step[j] = g[j];
            bool solved = matrix_solve(damped, step, n, 1);
            better = 0;
            for (int j = 0; j < n; j++)
                next[j] = x[j] + step[j];
            f(context, next, residual, NULL);
            for (int i = 0; i < count; i++)
                better += residual[i] * residual[i];
            damping *= solved && better <= sum ? 0.2 : 4;
            better = solved ? better : NAN;
        }
        if (!(better <= sum))
            break;
        still = sum - better <= 1e-13 * sum ? still + 1 : 0;
        sum = better;
        for (int j = 0; j < n; j++)
            x[j] = next[j];
        f(context, x, residual, jacobian);
    }
    free(residual);
    free(jacobian);
    free(next);
    free(a);
    free(damped);
    free(g);
    free(step);
    return sum;
}
