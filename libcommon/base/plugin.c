#include "base/plugin.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/memory.h"
#include "interface.h"

static char *program_folder(void)
{
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = 0;
    return memory_string(self);
}

void *plugin_symbol(const char *what, const char *variable, const char *file, const char *symbol, bool shared, Error *err)
{
    static const char *const beside[] = {"../lib", "../lib/lmpipe", "../../lib"};
    const char *named = getenv(variable);
    char *folder = program_folder(), *reason = NULL;
    void *handle = NULL;
    for (int i = 0; i < (named ? 1 : 3) && !handle; i++) {
        char *path = named ? memory_string(named) : memory_format("%s/%s/%s", folder, beside[i], file);
        handle = dlopen(path, RTLD_NOW | (shared ? RTLD_GLOBAL : RTLD_LOCAL));
        if (!handle && (named || access(path, F_OK) == 0)) {
            free(reason);
            reason = memory_string(dlerror());
        }
        free(path);
    }
    const char *interface = handle ? dlsym(handle, "lmpipe_interface") : NULL;
    bool same = interface && strcmp(interface, LMPIPE_INTERFACE) == 0;
    void *address = same ? dlsym(handle, symbol) : NULL;
    if (!handle)
        error_set(err, "%s: %s%s", what, reason ? reason : file, reason ? "" : " is not installed");
    else if (!same)
        error_set(err, "%s: %s is of another build than this program; build or install both again", what, named ? named : file);
    else if (!address)
        error_set(err, "%s: the shared object has no %s", what, symbol);
    free(folder);
    free(reason);
    return address;
}
