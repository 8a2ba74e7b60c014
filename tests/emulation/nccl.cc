/* The stand-in's ranks are threads of one process or processes of one machine. They meet on a socket that the unique id names: its maker,
 * who must be rank 0, takes in the others. In a collective the others hand rank 0 what they have, which does the work for all. */
#include "nccl.h"

#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

extern "C" {
#include "base/dtype.h"
}

/* What a rank calls; all of one meeting must be equal. */
struct Call {
    char name[16];
    uint64_t count;
    int type, op;
};

/* Who comes on a connection, and for what: collectives, letters of rank 0, letters to rank 0. */
enum { TOGETHER, DOWN, UP, WAYS };
struct Hello {
    int rank, size, way, process;
};

/* Letters of one pair and direction go one by one, in the order of posting. */
struct Way {
    int socket = -1;
    uint64_t posted = 0, next = 0;
};

struct Clique {
    int rank = 0, size = 0;
    bool one_process = true, connected = false; /* connected: for sends and receives */
    std::atomic<bool> ended{false}, remote{false}; /* aborted; another's process is gone */
    std::vector<Way> ways; /* [size][WAYS] of rank 0, [0][WAYS] of the others */
    std::mutex lock;
    std::condition_variable changed;
    ~Clique()
    {
        for (Way &w : ways)
            if (w.socket >= 0)
                close(w.socket);
    }
};

struct ncclComm {
    std::shared_ptr<Clique> clique;
};

static std::mutex listeners_lock;
static std::map<std::string, int> listeners;
static int last_id;

static socklen_t address_of(sockaddr_un *a, const ncclUniqueId *id)
{
    memset(a, 0, sizeof *a);
    a->sun_family = AF_UNIX;
    size_t length = strnlen(id->internal, sizeof a->sun_path - 1);
    memcpy(a->sun_path + 1, id->internal, length); /* behind a zero: a name that is no file */
    return (socklen_t)(offsetof(sockaddr_un, sun_path) + 1 + length);
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    std::lock_guard<std::mutex> hold(listeners_lock);
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "nccl-stand-in-%d-%d", (int)getpid(), ++last_id);
    sockaddr_un address;
    socklen_t length = address_of(&address, id);
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s < 0 || bind(s, (sockaddr *)&address, length) != 0 || listen(s, 64) != 0)
        return ncclInvalidArgument;
    listeners[id->internal] = s;
    return ncclSuccess;
}

static bool put(int s, const void *data, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = send(s, (const char *)data + done, bytes - done, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

static bool get(int s, void *data, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = recv(s, (char *)data + done, bytes - done, 0);
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

static Way *way_of(Clique *c, int rank, int way)
{
    return &c->ways[(size_t)(rank * WAYS + way)];
}

static ncclResult_t take_in(Clique *c, int listener)
{
    for (int i = 0; i < (c->size - 1) * WAYS; i++) {
        Hello h;
        int s = accept(listener, NULL, NULL);
        if (s < 0 || !get(s, &h, sizeof h) || h.size != c->size || h.rank < 1 || h.rank >= c->size || way_of(c, h.rank, h.way)->socket >= 0)
            return ncclInvalidArgument;
        way_of(c, h.rank, h.way)->socket = s;
        c->one_process &= h.process == (int)getpid();
    }
    close(listener);
    /* Nobody goes on before all have come. */
    for (int r = 1; r < c->size; r++)
        if (!put(way_of(c, r, TOGETHER)->socket, &c->one_process, sizeof c->one_process))
            return ncclRemoteError;
    return ncclSuccess;
}

static ncclResult_t go_to(Clique *c, const ncclUniqueId *id)
{
    sockaddr_un address;
    socklen_t length = address_of(&address, id);
    for (int way = 0; way < WAYS; way++) {
        Hello h = {c->rank, c->size, way, (int)getpid()};
        int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        way_of(c, 0, way)->socket = s;
        if (connect(s, (sockaddr *)&address, length) != 0 || !put(s, &h, sizeof h))
            return ncclRemoteError;
    }
    return get(way_of(c, 0, TOGETHER)->socket, &c->one_process, sizeof c->one_process) ? ncclSuccess : ncclInvalidArgument;
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int size, ncclUniqueId id, int rank)
{
    *comm = NULL;
    auto c = std::make_shared<Clique>();
    c->rank = rank;
    c->size = size;
    if (rank < 0 || rank >= size)
        return ncclInvalidArgument;
    c->ways.resize((size_t)(rank == 0 ? size : 1) * WAYS);
    ncclResult_t result;
    if (rank > 0) {
        result = go_to(c.get(), &id);
    } else {
        listeners_lock.lock();
        auto at = listeners.find(id.internal);
        int listener = at == listeners.end() ? -1 : at->second;
        if (listener >= 0)
            listeners.erase(at);
        listeners_lock.unlock();
        result = listener < 0 ? ncclInvalidArgument : take_in(c.get(), listener);
    }
    if (result == ncclSuccess)
        *comm = new ncclComm{c};
    return result;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    delete comm;
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    Clique *c = comm->clique.get();
    c->lock.lock();
    c->ended = true;
    c->changed.notify_all();
    c->lock.unlock();
    for (Way &w : c->ways)
        if (w.socket >= 0)
            shutdown(w.socket, SHUT_RDWR);
    return ncclCommDestroy(comm);
}

/* A connection has ended. In one process the others have failed and this rank may go on to hear of it; of another process's end only the
 * asynchronous error tells, and what it was wanted for never comes. */
static void gone(Clique *c)
{
    c->ended = c->ended || c->one_process;
    c->remote = !c->ended;
    while (!c->ended)
        usleep(1000);
    c->lock.lock();
    c->changed.notify_all();
    c->lock.unlock();
}

static size_t size_of(int type)
{
    return type == ncclFloat32 ? 4 : type == ncclBfloat16 ? 2 : 1;
}

static float number(const std::vector<char> &x, size_t i, int type)
{
    return type == ncclFloat32 ? ((const float *)x.data())[i] : bf16_to_f32(((const uint16_t *)x.data())[i]);
}

typedef std::vector<std::vector<char>> Parts; /* of every rank */

/* Elements at … at+n of all ranks, added in their order. */
static std::vector<char> reduce(const Call &call, const Parts &from, size_t at, size_t n)
{
    std::vector<char> to(n * size_of(call.type));
    for (size_t i = 0; i < n; i++) {
        float all = number(from[0], at + i, call.type);
        for (size_t r = 1; r < from.size(); r++) {
            float x = number(from[r], at + i, call.type);
            all = all + x;
        }
        if (call.type == ncclFloat32)
            ((float *)to.data())[i] = all;
        else
            ((uint16_t *)to.data())[i] = f32_to_bf16(all);
    }
    return to;
}

/* What every rank gets, of what every rank has. */
static Parts work(const Call &call, const Parts &from)
{
    Parts to(from.size());
    for (size_t r = 0; r < to.size(); r++)
        if (strcmp(call.name, "reduce-scatter") == 0)
            to[r] = reduce(call, from, r * call.count, call.count);
        else if (r > 0)
            to[r] = to[0];
        else if (strcmp(call.name, "all-reduce") == 0)
            to[r] = reduce(call, from, 0, call.count);
        else
            for (const auto &part : from)
                to[r].insert(to[r].end(), part.begin(), part.end());
    return to;
}

static bool meet_as_first(Clique *c, const Call &call, Parts &from, std::vector<char> &result)
{
    for (int r = 1; r < c->size; r++) {
        Call other;
        int s = way_of(c, r, TOGETHER)->socket;
        if (!get(s, &other, sizeof other))
            return false;
        if (strcmp(call.name, other.name) != 0 || call.count != other.count || call.type != other.type || call.op != other.op) {
            fprintf(stderr, "nccl stand-in: rank %d calls %s of %zu numbers while rank 0 calls %s of %zu\n", r, other.name, (size_t)other.count, call.name,
                    (size_t)call.count);
            abort();
        }
        from.emplace_back(from[0].size());
        if (!get(s, from.back().data(), from.back().size()))
            return false;
    }
    Parts to = work(call, from);
    for (int r = 1; r < c->size; r++)
        if (!put(way_of(c, r, TOGETHER)->socket, to[(size_t)r].data(), to[(size_t)r].size()))
            return false;
    result = to[0];
    return true;
}

/* bytes: that a rank has, and that it gets. */
static ncclResult_t meet(ncclComm_t comm, Call call, const void *from, size_t have, void *to, size_t bytes, cudaStream_t stream)
{
    emulation_reach(stream);
    Clique *c = comm->clique.get();
    Parts parts(1);
    std::vector<char> result(bytes);
    {
        EmulationAccess access;
        parts[0].assign((const char *)from, (const char *)from + have);
    }
    int first = way_of(c, 0, TOGETHER)->socket;
    bool met = c->rank == 0 ? meet_as_first(c, call, parts, result)
                            : put(first, &call, sizeof call) && put(first, parts[0].data(), have) && get(first, result.data(), bytes);
    if (!met) {
        gone(c);
        return ncclSuccess;
    }
    EmulationAccess access;
    memcpy(to, result.data(), bytes);
    return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream)
{
    return meet(comm, {"all-reduce", count, type, op}, from, count * size_of(type), to, count * size_of(type), stream);
}

ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t type, ncclComm_t comm, cudaStream_t stream)
{
    size_t bytes = count * size_of(type);
    return meet(comm, {"all-gather", count, type, ncclSum}, from, bytes, to, bytes * (size_t)comm->clique->size, stream);
}

ncclResult_t ncclReduceScatter(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream)
{
    size_t bytes = count * size_of(type);
    return meet(comm, {"reduce-scatter", count, type, op}, from, bytes * (size_t)comm->clique->size, to, bytes, stream);
}

/* A send or a receive. */
struct Letter {
    bool send, done;
    Way *way;
    uint64_t number; /* on its way */
    char *data;
    size_t bytes;
};

/* The receiver says when it has the letter: a send lasts until then, as one of a GPU's may. */
static bool carry_one(Clique *c, const Letter &l)
{
    int s = l.way->socket;
    uint64_t bytes = l.bytes;
    char received = 1;
    std::vector<char> data(l.bytes);
    if (l.send) {
        {
            EmulationAccess access;
            memcpy(data.data(), l.data, l.bytes);
        }
        return put(s, &bytes, sizeof bytes) && put(s, data.data(), l.bytes) && get(s, &received, 1);
    }
    if (!get(s, &bytes, sizeof bytes))
        return false;
    if (bytes != l.bytes) {
        fprintf(stderr, "nccl stand-in: rank %d receives %zu bytes where %zu are sent\n", c->rank, l.bytes, (size_t)bytes);
        abort();
    }
    if (!get(s, data.data(), l.bytes))
        return false;
    EmulationAccess access;
    memcpy(l.data, data.data(), l.bytes);
    return put(s, &received, 1);
}

/* Each letter goes on a thread of its own, which waits for what lay before it on the stream, as a GPU does whatever the host waits for. */
static void carry(std::shared_ptr<Clique> c, std::shared_ptr<Letter> mine, std::vector<std::function<void()>> before)
{
    for (const auto &wait : before)
        wait();
    std::unique_lock<std::mutex> hold(c->lock);
    c->changed.wait(hold, [&] { return c->ended || mine->way->next == mine->number; });
    hold.unlock();
    if (c->ended)
        return;
    if (!carry_one(c.get(), *mine)) {
        gone(c.get());
        return;
    }
    hold.lock();
    mine->way->next++;
    mine->done = true;
    c->changed.notify_all();
}

/* The first send or receive of a communicator holds the caller until the other rank comes to its own, as NCCL does while it makes the
 * connection. */
static void connect(Clique *c)
{
    char here = 1;
    int s = way_of(c, c->rank == 0 ? 1 : 0, TOGETHER)->socket;
    c->connected = true;
    if (!put(s, &here, 1) || !get(s, &here, 1))
        gone(c);
}

/* Between two ranks alone: more of a communicator nobody asks for. */
static ncclResult_t post(ncclComm_t comm, bool send, void *data, size_t bytes, int peer, cudaStream_t stream)
{
    std::shared_ptr<Clique> c = comm->clique;
    if (c->size != 2 || peer != 1 - c->rank)
        return ncclInvalidArgument;
    if (!c->connected)
        connect(c.get());
    auto mine = std::make_shared<Letter>();
    Way *way = way_of(c.get(), c->rank == 0 ? 1 : 0, send == (c->rank == 0) ? DOWN : UP);
    c->lock.lock();
    *mine = {send, false, way, way->posted++, (char *)data, bytes};
    c->lock.unlock();
    std::thread(carry, c, mine, stream->waits).detach();
    stream->waits.push_back([c, mine] {
        std::unique_lock<std::mutex> until(c->lock);
        c->changed.wait(until, [&] { return mine->done || c->ended; });
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

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *result)
{
    *result = failing || comm->clique->remote ? ncclRemoteError : ncclSuccess;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    return result == ncclSuccess ? "no error" : result == ncclRemoteError ? "remote process exited or there was a network error" : "invalid argument";
}
