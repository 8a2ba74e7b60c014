#include "io/stats.h"

#include <math.h>
#include <sys/resource.h>
#include "base/progress.h"
#include "io/json.h"
#include "io/stream.h"

int stats_write(const char *path, const StatsItem *items, size_t count, double begin, Error *err)
{
    if (!path)
        return 0;
    Buffer b = {0};
    buffer_byte(&b, '{');
    for (size_t i = 0; i < count; i++) {
        buffer_format(&b, "%s\"%s\":", i ? "," : "", items[i].key);
        json_write_number(&b, items[i].value);
    }
    struct rusage used;
    if (!isnan(begin))
        buffer_format(&b, "%s\"seconds\":%.3f", count ? "," : "", clock_seconds() - begin);
    if (!isnan(begin) && getrusage(RUSAGE_SELF, &used) == 0)
        buffer_format(&b, ",\"peak_bytes\":%lld", (long long)used.ru_maxrss * 1024);
    buffer_string(&b, "}\n");
    int status = file_write(path, b.data, b.length, err);
    buffer_free(&b);
    return status;
}
