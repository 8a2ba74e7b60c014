#include "train/run.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/memory.h"
#include "io/json.h"
#include "io/stream.h"
#include "train/same.h"

int folder_remove(const char *path, Error *err)
{
    int descriptor = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = descriptor >= 0 ? fdopendir(descriptor) : NULL;
    if (!d)
        return errno == ENOENT || unlink(path) == 0 ? 0 : error_set(err, "%s:", path);
    int status = 0;
    for (struct dirent *e; status == 0 && (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        char *child = memory_format("%s/%s", path, e->d_name);
        struct stat st;
        if (lstat(child, &st) == 0 && S_ISDIR(st.st_mode))
            status = folder_remove(child, err);
        else if (unlink(child) != 0)
            status = error_set(err, "%s:", child);
        free(child);
    }
    closedir(d);
    if (status == 0 && rmdir(path) != 0)
        status = error_set(err, "%s:", path);
    return status;
}

static int64_t step_of_name(const char *name)
{
    if (strncmp(name, "step-", 5) != 0 || strlen(name) != 13 || strspn(name + 5, "0123456789") != 8)
        return -1;
    return strtoll(name + 5, NULL, 10);
}

int64_t run_step_before(const Run *run, int64_t step)
{
    DIR *d = opendir(run->folder);
    int64_t newest = -1;
    if (!d)
        return -1;
    for (struct dirent *e; (e = readdir(d));) {
        int64_t s = step_of_name(e->d_name);
        if (s < step && s > newest)
            newest = s;
    }
    closedir(d);
    return newest;
}

char *run_step_path(const Run *run, int64_t step)
{
    return memory_format("%s/step-%08" PRId64, run->folder, step);
}

/* The options that the run in `folder` was started with, where it was, against these. */
static int options_compare(const char *folder, const char *options, const char *const *free_options, Error *err)
{
    char *path = memory_format("%s/options.json", folder);
    JsonTree old = {0}, new = {0};
    Buffer text = {0};
    OptionDifference d = {0};
    int status = json_parse_file(&old, path, err);
    if (status == 0)
        status = options_parse(&new, &text, options, err);
    if (status == 0 && options_differ(old.root, new.root, free_options, &d))
        status = error_set(err, "%s: the run was started with --%s %s, not %s; give another -o for another run", folder, d.name, d.first.data, d.second.data);
    buffer_free(&d.first);
    buffer_free(&d.second);
    json_free(&old);
    json_free(&new);
    buffer_free(&text);
    free(path);
    return status;
}

static bool is_there(const char *folder, const char *name)
{
    char *path = memory_format("%s/%s", folder, name);
    bool there = access(path, F_OK) == 0;
    free(path);
    return there;
}

static int options_check(Run *run, const char *options, const char *const *free_options, Error *err)
{
    if (is_there(run->folder, "options.json"))
        return options_compare(run->folder, options, free_options, err);
    char *path = memory_format("%s/options.json", run->folder);
    int status = file_write(path, options, strlen(options), err);
    free(path);
    return status;
}

/* Without its final model a run has not ended: who takes that away, or is killed while one is put in its place, gets it again. */
static bool has_ended(const char *folder)
{
    return is_there(folder, "done") && is_there(folder, "final");
}

int run_finished(const char *folder, const char *options, const char *const *free_options, Error *err)
{
    if (!has_ended(folder))
        return 0;
    return !is_there(folder, "options.json") || options_compare(folder, options, free_options, err) == 0 ? 1 : -1;
}

static void remove_leftovers(const Run *run)
{
    DIR *d = opendir(run->folder);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));)
        if (strstr(e->d_name, ".tmp-")) {
            char *path = memory_format("%s/%s", run->folder, e->d_name);
            folder_remove(path, NULL);
            free(path);
        }
    closedir(d);
}

int run_open(Run *run, const char *folder, const char *options, const char *const *free_options, Error *err)
{
    *run = (Run){.lock = -1, .step = -1};
    if (folder_create(folder, err) < 0)
        return -1;
    run->folder = memory_string(folder);
    char *path = memory_format("%s/lock", folder);
    run->lock = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0666);
    int status = 0;
    if (run->lock < 0)
        status = error_set(err, "%s:", path);
    else if (flock(run->lock, LOCK_EX | LOCK_NB) != 0)
        status = error_set(err, errno == EWOULDBLOCK ? "%s: another process is training in this folder" : "%s:", folder);
    free(path);
    if (status == 0)
        status = options_check(run, options, free_options, err);
    if (status < 0) {
        run_close(run);
        return -1;
    }
    remove_leftovers(run);
    run->done = has_ended(folder);
    run->step = run_step_before(run, INT64_MAX);
    return 0;
}

char *run_temporary_path(const Run *run, const char *name)
{
    return memory_format("%s/.tmp-%s", run->folder, name);
}

char *run_temporary(const Run *run, const char *name, Error *err)
{
    char *path = run_temporary_path(run, name);
    if (folder_remove(path, err) < 0 || folder_create(path, err) < 0) {
        free(path);
        return NULL;
    }
    return path;
}

/* Moves a folder of the run out of the way, under a name that no other thread moves one to, before its files go one by one: a
 * kill in the middle must not leave half of it under its name. */
static char *doomed_path(const Run *run, const char *name)
{
    return memory_format("%s/.tmp-old-%s", run->folder, name);
}

/* Puts a whole folder in the place of another of the run: the old one, if any, is moved away first. */
static int folder_replace(const Run *run, const char *temporary, const char *name, Error *err)
{
    if (folder_sync(temporary, err) < 0)
        return -1;
    char *path = memory_format("%s/%s", run->folder, name);
    int status = 0;
    if (access(path, F_OK) == 0) {
        char *old = doomed_path(run, name);
        status = folder_remove(old, err);
        if (status == 0 && rename(path, old) != 0)
            status = error_set(err, "%s:", path);
        if (status == 0 && rename(temporary, path) != 0)
            status = error_set(err, "%s:", path);
        if (status == 0)
            folder_remove(old, NULL);
        free(old);
    } else if (rename(temporary, path) != 0) {
        status = error_set(err, "%s:", path);
    }
    free(path);
    return status < 0 ? -1 : folder_sync(run->folder, err);
}

static int latest_point(const Run *run, int64_t step, Error *err)
{
    char *link = memory_format("%s/latest", run->folder), *temporary = memory_format("%s/.tmp-latest", run->folder);
    char target[32];
    snprintf(target, sizeof target, "step-%08" PRId64, step);
    unlink(temporary);
    int status = symlink(target, temporary) != 0 || rename(temporary, link) != 0 ? error_set(err, "%s:", link) : 0;
    free(link);
    free(temporary);
    return status;
}

static void step_remove(const Run *run, int64_t step)
{
    char *path = run_step_path(run, step), *doomed = doomed_path(run, strrchr(path, '/') + 1);
    if (folder_remove(doomed, NULL) == 0 && rename(path, doomed) == 0)
        folder_remove(doomed, NULL);
    free(path);
    free(doomed);
}

int run_commit_step(Run *run, const char *temporary, int64_t step, int64_t keep, int64_t keep_every, Error *err)
{
    char *path = run_step_path(run, step);
    int status = folder_replace(run, temporary, strrchr(path, '/') + 1, err);
    free(path);
    if (status == 0)
        status = latest_point(run, step, err);
    if (status < 0)
        return -1;
    run->step = step;
    int64_t newer = 1;
    for (int64_t s = run_step_before(run, step), older; keep > 0 && s >= 0; s = older) {
        older = run_step_before(run, s);
        if (keep_every > 0 && s % keep_every == 0)
            continue;
        if (newer >= keep)
            step_remove(run, s);
        else
            newer++;
    }
    return 0;
}

int run_commit_model(const Run *run, const char *temporary, const char *name, Error *err)
{
    return folder_replace(run, temporary, name, err);
}

int run_commit_final(Run *run, const char *temporary, Error *err)
{
    int status = run_commit_model(run, temporary, "final", err);
    char *path = memory_format("%s/done", run->folder);
    if (status == 0)
        status = file_write(path, "", 0, err);
    free(path);
    run->done = status == 0;
    return status;
}

void run_follow(Run *run, const char *folder)
{
    *run = (Run){.lock = -1, .step = -1, .folder = memory_string(folder)};
}

void run_close(Run *run)
{
    if (run->lock >= 0)
        close(run->lock);
    free(run->folder);
    *run = (Run){.lock = -1, .step = -1};
}
