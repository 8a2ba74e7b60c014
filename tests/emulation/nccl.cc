/* The stand-in's ranks meet at a barrier; the last to come does the work for all. */
#include "nccl.h"

#include <stdio.h>
#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

extern "C" {
#include "base/dtype.h"
}

/* What a rank calls; all of one meeting must be equal. */
struct Call {
    const char *name = NULL;
    size_t count = 0;
    ncclDataType_t type = ncclInt8;
    ncclRedOp_t op = ncclSum;
};

/* A send or a receive. */
struct Letter {
    bool send, ready = false, done = false;
    int from, to;
    char *data;
    size_t bytes;
    std::shared_ptr<Letter> other; /* its counterpart, once that is posted */
};

struct Clique {
    int size = 0, joined = 0, arrived = 0;
    unsigned generation = 0;
    bool aborted = false;
    Call call;
    std::vector<const char *> from;
    std::vector<char *> to;
    std::vector<std::shared_ptr<Letter>> letters; /* without counterpart, oldest first */
    std::mutex lock;
    std::condition_variable changed;
};

struct ncclComm {
    std::shared_ptr<Clique> clique;
    int rank;
};

static std::mutex cliques_lock;
static std::map<int, std::shared_ptr<Clique>> cliques;
static int last_id;

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    std::lock_guard<std::mutex> hold(cliques_lock);
    last_id++;
    memset(id, 0, sizeof *id);
    memcpy(id->internal, &last_id, sizeof last_id);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int size, ncclUniqueId id, int rank)
{
    int number;
    memcpy(&number, id.internal, sizeof number);
    std::lock_guard<std::mutex> hold(cliques_lock);
    std::shared_ptr<Clique> &c = cliques[number];
    if (!c) {
        c = std::make_shared<Clique>();
        c->size = size;
        c->from.resize((size_t)size);
        c->to.resize((size_t)size);
    }
    if (number < 1 || number > last_id || c->size != size || rank < 0 || rank >= size)
        return ncclInvalidArgument;
    c->joined++;
    *comm = new ncclComm{c, rank};
    return ncclSuccess;
}

static ncclResult_t leave(ncclComm_t comm, bool aborted)
{
    std::shared_ptr<Clique> c = comm->clique;
    delete comm;
    c->lock.lock();
    c->aborted |= aborted;
    c->changed.notify_all();
    bool last = --c->joined == 0;
    c->lock.unlock();
    if (last) {
        std::lock_guard<std::mutex> hold(cliques_lock);
        for (auto i = cliques.begin(); i != cliques.end(); ++i)
            if (i->second == c) {
                cliques.erase(i);
                break;
            }
    }
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    return leave(comm, false);
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    return leave(comm, true);
}

static size_t size_of(ncclDataType_t type)
{
    return type == ncclFloat32 ? 4 : type == ncclBfloat16 ? 2 : 1;
}

static float number(const char *x, size_t i, ncclDataType_t type)
{
    return type == ncclFloat32 ? ((const float *)x)[i] : bf16_to_f32(((const uint16_t *)x)[i]);
}

/* Elements at … at+n of all ranks, added in their order, to the target. */
static void reduce(Clique *c, size_t at, size_t n, char *to)
{
    for (size_t i = 0; i < n; i++) {
        float all = number(c->from[0], at + i, c->call.type);
        for (size_t r = 1; r < (size_t)c->size; r++) {
            float x = number(c->from[r], at + i, c->call.type);
            all = c->call.op == ncclSum ? all + x : x > all ? x : all;
        }
        if (c->call.type == ncclFloat32)
            ((float *)to)[i] = all;
        else
            ((uint16_t *)to)[i] = f32_to_bf16(all);
    }
}

static void all_reduce(Clique *c)
{
    size_t bytes = c->call.count * size_of(c->call.type);
    std::vector<char> sums(bytes);
    reduce(c, 0, c->call.count, sums.data());
    for (char *to : c->to)
        memcpy(to, sums.data(), bytes);
}

static void all_gather(Clique *c)
{
    size_t bytes = c->call.count * size_of(c->call.type);
    for (char *to : c->to)
        for (size_t r = 0; r < (size_t)c->size; r++)
            memmove(to + r * bytes, c->from[r], bytes);
}

static void reduce_scatter(Clique *c)
{
    for (size_t r = 0; r < (size_t)c->size; r++)
        reduce(c, r * c->call.count, c->call.count, c->to[r]);
}

static ncclResult_t meet(ncclComm_t comm, Call call, const void *from, void *to, cudaStream_t stream, void (*work)(Clique *))
{
    emulation_reach(stream);
    Clique *c = comm->clique.get();
    std::unique_lock<std::mutex> hold(c->lock);
    if (c->arrived > 0 && (strcmp(c->call.name, call.name) != 0 || c->call.count != call.count || c->call.type != call.type || c->call.op != call.op)) {
        fprintf(stderr, "nccl stand-in: rank %d calls %s of %zu numbers while others call %s of %zu\n", comm->rank, call.name, call.count, c->call.name,
                c->call.count);
        abort();
    }
    c->call = call;
    c->from[(size_t)comm->rank] = (const char *)from;
    c->to[(size_t)comm->rank] = (char *)to;
    unsigned generation = c->generation;
    if (++c->arrived == c->size) {
        EmulationAccess access;
        work(c);
        c->arrived = 0;
        c->generation++;
        c->changed.notify_all();
    }
    c->changed.wait(hold, [=] { return c->generation != generation || c->aborted; });
    return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream)
{
    return meet(comm, {"all-reduce", count, type, op}, from, to, stream, all_reduce);
}

ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t type, ncclComm_t comm, cudaStream_t stream)
{
    return meet(comm, {"all-gather", count, type, ncclSum}, from, to, stream, all_gather);
}

ncclResult_t ncclReduceScatter(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream)
{
    return meet(comm, {"reduce-scatter", count, type, op}, from, to, stream, reduce_scatter);
}

/* Letters of one pair and direction meet in the order of posting. Each goes on a thread of its own, which waits for what lay before it
 * on the stream, as a GPU does whatever the host waits for; the second of two to get there carries the bytes. */
static void carry(std::shared_ptr<Clique> c, std::shared_ptr<Letter> mine, std::vector<std::function<void()>> before)
{
    for (const auto &wait : before)
        wait();
    std::unique_lock<std::mutex> hold(c->lock);
    mine->ready = true;
    c->changed.notify_all();
    c->changed.wait(hold, [&] { return c->aborted || (mine->other && mine->other->ready); });
    if (c->aborted)
        return;
    Letter *other = mine->other.get(), *sent = mine->send ? mine.get() : other, *taken = mine->send ? other : mine.get();
    if (sent->bytes != taken->bytes) {
        fprintf(stderr, "nccl stand-in: rank %d sends %zu bytes, rank %d receives %zu\n", mine->from, sent->bytes, mine->to, taken->bytes);
        abort();
    }
    if (!mine->done) {
        EmulationAccess access;
        memcpy(taken->data, sent->data, sent->bytes);
        mine->done = other->done = true;
    }
    mine->other.reset();
    c->changed.notify_all();
}

static ncclResult_t post(ncclComm_t comm, bool send, void *data, size_t bytes, int peer, cudaStream_t stream)
{
    std::shared_ptr<Clique> c = comm->clique;
    if (peer < 0 || peer >= c->size || peer == comm->rank)
        return ncclInvalidArgument;
    auto mine = std::make_shared<Letter>();
    mine->send = send;
    mine->from = send ? comm->rank : peer;
    mine->to = send ? peer : comm->rank;
    mine->data = (char *)data;
    mine->bytes = bytes;
    c->lock.lock();
    auto other = c->letters.begin();
    while (other != c->letters.end() && ((*other)->send == send || (*other)->from != mine->from || (*other)->to != mine->to))
        ++other;
    if (other == c->letters.end()) {
        c->letters.push_back(mine);
    } else {
        mine->other = *other;
        (*other)->other = mine;
        c->letters.erase(other);
        c->changed.notify_all();
    }
    c->lock.unlock();
    std::thread(carry, c, mine, stream->waits).detach();
    stream->waits.push_back([c, mine] {
        std::unique_lock<std::mutex> until(c->lock);
        c->changed.wait(until, [&] { return mine->done || c->aborted; });
    });
    return ncclSuccess;
}

ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream)
{
    return post(comm, true, (void *)(uintptr_t)from, count * size_of(type), peer, stream);
}

ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream)
{
    return post(comm, false, to, count * size_of(type), peer, stream);
}

static std::atomic<bool> failing;

void nccl_standin_fail()
{
    failing = true;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t *result)
{
    *result = failing ? ncclRemoteError : ncclSuccess;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    return result == ncclSuccess ? "no error" : result == ncclRemoteError ? "remote process exited or there was a network error" : "invalid argument";
}
