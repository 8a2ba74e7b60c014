/* Times of links and of collectives over them. */
#include <math.h>
#include "train/cost.h"

CostLink cost_link(const CostCluster *c, double stride, double size)
{
    bool inside = stride * size <= c->node;
    return (CostLink){1 / ((inside ? c->intra_bandwidth : c->inter_bandwidth) * c->link_share), inside ? c->intra_latency : c->inter_latency};
}

double cost_gather_ring(CostLink l, double p, double n)
{
    return p > 1 ? (p - 1) * l.latency + (p - 1) / p * n * l.per_byte : 0;
}

double cost_gather_doubling(CostLink l, double p, double n)
{
    return p > 1 ? log2(p) * l.latency + (p - 1) / p * n * l.per_byte : 0;
}

double cost_all_reduce_ring(CostLink l, double p, double n)
{
    return 2 * cost_gather_ring(l, p, n);
}

double cost_all_reduce_tree(CostLink l, double p, double n)
{
    return p > 1 ? 2 * log2(p) * l.latency + 2 * n * l.per_byte : 0;
}
