/* Least squares by lines and parabolas, and Student's t. */
#include <math.h>
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

void parabola_fit(const double *x, const double *y, int n, double c[3])
{
    double mean = 0, a[3][4] = {{0}};
    for (int i = 0; i < n; i++)
        mean += x[i] / n;
    for (int i = 0; i < n; i++) {
        double p[3] = {1, x[i] - mean, (x[i] - mean) * (x[i] - mean)};
        for (int j = 0; j < 3; j++) {
            for (int k = 0; k < 3; k++)
                a[j][k] += p[j] * p[k];
            a[j][3] += p[j] * y[i];
        }
    }
    for (int j = 0; j < 3; j++) {
        int pivot = j;
        for (int k = j + 1; k < 3; k++)
            pivot = fabs(a[k][j]) > fabs(a[pivot][j]) ? k : pivot;
        for (int k = 0; k < 4; k++) {
            double swap = a[j][k];
            a[j][k] = a[pivot][k];
            a[pivot][k] = swap;
        }
        for (int i = 0; i < 3; i++) {
            double by = i == j ? 0 : a[i][j] / a[j][j];
            for (int k = j; k < 4; k++)
                a[i][k] -= by * a[j][k];
        }
    }
    double d0 = a[0][3] / a[0][0], d1 = a[1][3] / a[1][1], d2 = a[2][3] / a[2][2];
    c[2] = d2;
    c[1] = d1 - 2 * d2 * mean;
    c[0] = d0 - d1 * mean + d2 * mean * mean;
}
