/* ZooKeeper's C client (libzookeeper_mt) against a server: c_suite HOST:PORT
 *
 * Prints a line per check and ends with `N passed, N failed`. Every wait has a bound, and so has the whole run (alarm).
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <zookeeper/zookeeper.h>

enum { WAIT_SECONDS = 20, TOTAL_SECONDS_MAX = 120, EVENTS_MAX = 64, PIPELINED = 10000 };

/* ---- what one check may use ------------------------------------------------------------------------------------ */

/* Events in order of arrival. Filled by the client's completion thread, read by the check. */
struct events {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int count;
    int type[EVENTS_MAX];
    char path[EVENTS_MAX][256];
    int state;
};

static const char *address;
static char base[128]; /* a node of the running check's own */
static char failure[512];
static int passed, failed;

static int fail_at(int line, const char *format, ...) {
    int length = snprintf(failure, sizeof failure, "line %d: ", line);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(failure + length, sizeof failure - length, format, arguments);
    va_end(arguments);
    return 0;
}

#define EXPECT(got, want)                                                                                   \
    do {                                                                                                    \
        long long got_ = (got), want_ = (want);                                                             \
        if (got_ != want_) return fail_at(__LINE__, #got " is %lld, want %lld", got_, want_);               \
    } while (0)
#define EXPECT_TEXT(got, want)                                                                              \
    do {                                                                                                    \
        if (strcmp((got), (want))) return fail_at(__LINE__, #got " is %s, want %s", (got), (want));         \
    } while (0)

static void record(zhandle_t *zh, int type, int state, const char *path, void *context) {
    (void)zh;
    struct events *events = context;
    pthread_mutex_lock(&events->lock);
    if (type == ZOO_SESSION_EVENT) {
        events->state = state;
    } else if (events->count < EVENTS_MAX) {
        events->type[events->count] = type;
        snprintf(events->path[events->count++], sizeof events->path[0], "%s", path);
    }
    pthread_cond_broadcast(&events->changed);
    pthread_mutex_unlock(&events->lock);
}

static void events_init(struct events *events) {
    memset(events, 0, sizeof *events);
    pthread_mutex_init(&events->lock, NULL);
    pthread_cond_init(&events->changed, NULL);
}

/* Waits until there are `count` events, or with count < 0 until the session is in `state`. */
static int events_wait(struct events *events, int count, int state) {
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += WAIT_SECONDS;
    int late = 0;
    pthread_mutex_lock(&events->lock);
    while (!late && (count >= 0 ? events->count < count : events->state != state))
        late = pthread_cond_timedwait(&events->changed, &events->lock, &end);
    pthread_mutex_unlock(&events->lock);
    return !late;
}

static zhandle_t *client_with(struct events *events, int timeout_ms, const clientid_t *id) {
    zhandle_t *zh = zookeeper_init(address, record, timeout_ms, id, events, 0);
    if (zh && events_wait(events, -1, ZOO_CONNECTED_STATE)) return zh;
    fprintf(stderr, "no session within %d s\n", WAIT_SECONDS);
    exit(1);
}

static zhandle_t *client(void) {
    static struct events ignored[16];
    static int used;
    struct events *events = &ignored[used++ % 16];
    events_init(events);
    return client_with(events, 10000, NULL);
}

static int make(zhandle_t *zh, const char *path, const char *data, int mode) {
    return zoo_create(zh, path, data, data ? (int)strlen(data) : -1, &ZOO_OPEN_ACL_UNSAFE, mode, NULL, 0);
}

static const char *below(const char *name) {
    static char paths[8][256];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", base, name);
    return path;
}

/* ---- nodes ----------------------------------------------------------------------------------------------------- */

static int create_get_set_delete(void) {
    zhandle_t *zh = client();
    char data[64], path[256];
    int length = sizeof data;
    struct Stat stat;
    EXPECT(zoo_create(zh, base, "one", 3, &ZOO_OPEN_ACL_UNSAFE, 0, path, sizeof path), ZOK);
    EXPECT_TEXT(path, base);
    EXPECT(zoo_get(zh, base, 0, data, &length, &stat), ZOK);
    EXPECT(length, 3);
    EXPECT(memcmp(data, "one", 3), 0);
    EXPECT(zoo_set2(zh, base, "three", 5, 0, &stat), ZOK);
    EXPECT(stat.version, 1);
    EXPECT(stat.dataLength, 5);
    EXPECT(zoo_set(zh, base, "x", 1, 0), ZBADVERSION);
    EXPECT(make(zh, base, "x", 0), ZNODEEXISTS);
    EXPECT(make(zh, below("no/no"), "x", 0), ZNONODE);
    EXPECT(make(zh, below("kid"), "x", 0), ZOK);
    EXPECT(zoo_delete(zh, base, -1), ZNOTEMPTY);
    EXPECT(zoo_delete(zh, below("kid"), 7), ZBADVERSION);
    EXPECT(zoo_delete(zh, below("kid"), 0), ZOK);
    EXPECT(zoo_delete(zh, base, 1), ZOK);
    EXPECT(zoo_exists(zh, base, 0, NULL), ZNONODE);
    zookeeper_close(zh);
    return 1;
}

static int null_data(void) {
    zhandle_t *zh = client();
    char data[8];
    int length = sizeof data;
    EXPECT(make(zh, base, NULL, 0), ZOK);
    EXPECT(zoo_get(zh, base, 0, data, &length, NULL), ZOK);
    EXPECT(length, -1);
    EXPECT(zoo_set(zh, base, "", 0, -1), ZOK);
    length = sizeof data;
    EXPECT(zoo_get(zh, base, 0, data, &length, NULL), ZOK);
    EXPECT(length, 0);
    zookeeper_close(zh);
    return 1;
}

static int create2_stat(void) {
    zhandle_t *zh = client();
    char path[256];
    struct Stat stat;
    EXPECT(zoo_create2(zh, base, "12345", 5, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, path, sizeof path, &stat), ZOK);
    EXPECT_TEXT(path, base);
    EXPECT(stat.dataLength, 5);
    EXPECT(stat.ephemeralOwner, zoo_client_id(zh)->client_id);
    EXPECT(stat.czxid, stat.pzxid);
    zookeeper_close(zh);
    return 1;
}

static int children_lists(void) {
    zhandle_t *zh = client();
    struct String_vector names;
    struct Stat stat;
    EXPECT(make(zh, base, "x", 0), ZOK);
    EXPECT(zoo_get_children(zh, base, 0, &names), ZOK);
    EXPECT(names.count, 0);
    deallocate_String_vector(&names);
    EXPECT(make(zh, below("a"), "x", 0), ZOK);
    EXPECT(make(zh, below("b"), "x", 0), ZOK);
    EXPECT(zoo_get_children2(zh, base, 0, &names, &stat), ZOK);
    EXPECT(names.count, 2);
    EXPECT(stat.numChildren, 2);
    EXPECT(stat.cversion, 2);
    deallocate_String_vector(&names);
    zookeeper_close(zh);
    return 1;
}

static int ephemeral_sequential(void) {
    zhandle_t *zh = client(), *other = client();
    char path[256];
    struct Stat stat;
    EXPECT(make(other, base, "x", 0), ZOK);
    for (int n = 0; n < 3; n++) {
        char want[256];
        snprintf(want, sizeof want, "%s/s-%010d", base, n);
        EXPECT(zoo_create(zh, below("s-"), "x", 1, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL | ZOO_SEQUENCE, path,
                          sizeof path), ZOK);
        EXPECT_TEXT(path, want);
    }
    EXPECT(make(zh, below("s-0000000000/kid"), "x", 0), ZNOCHILDRENFOREPHEMERALS);
    EXPECT(zoo_exists(other, path, 0, &stat), ZOK);
    EXPECT(stat.ephemeralOwner, zoo_client_id(zh)->client_id);
    zookeeper_close(zh);
    EXPECT(zoo_exists(other, base, 0, &stat), ZOK);
    EXPECT(stat.numChildren, 0);
    EXPECT(stat.cversion, 6);
    zookeeper_close(other);
    return 1;
}

/* ---- watches --------------------------------------------------------------------------------------------------- */

static int watches(void) {
    zhandle_t *zh = client(), *other = client();
    struct events events;
    struct Stat stat;
    struct String_vector names;
    char data[8];
    int length = sizeof data;
    events_init(&events);
    EXPECT(zoo_wexists(zh, base, record, &events, &stat), ZNONODE);
    EXPECT(make(other, base, "x", 0), ZOK);
    EXPECT(events_wait(&events, 1, 0), 1);
    EXPECT(events.type[0], ZOO_CREATED_EVENT);
    EXPECT(zoo_wget(zh, base, record, &events, data, &length, &stat), ZOK);
    EXPECT(zoo_set(other, base, "y", 1, -1), ZOK);
    EXPECT(events_wait(&events, 2, 0), 1);
    EXPECT(events.type[1], ZOO_CHANGED_EVENT);
    EXPECT(zoo_wget_children(zh, base, record, &events, &names), ZOK);
    deallocate_String_vector(&names);
    EXPECT(make(other, below("kid"), "x", 0), ZOK);
    EXPECT(events_wait(&events, 3, 0), 1);
    EXPECT(events.type[2], ZOO_CHILD_EVENT);
    EXPECT(zoo_wget(zh, below("kid"), record, &events, data, &length, &stat), ZOK);
    EXPECT(zoo_delete(other, below("kid"), -1), ZOK);
    EXPECT(events_wait(&events, 4, 0), 1);
    EXPECT(events.type[3], ZOO_DELETED_EVENT);
    EXPECT_TEXT(events.path[3], below("kid"));
    EXPECT(events.count, 4);
    zookeeper_close(zh);
    zookeeper_close(other);
    return 1;
}

static int removed_watch(void) {
    zhandle_t *zh = client();
    struct events events;
    struct Stat stat;
    events_init(&events);
    EXPECT(make(zh, base, "x", 0), ZOK);
    EXPECT(zoo_wexists(zh, base, record, &events, &stat), ZOK);
    EXPECT(zoo_remove_watches(zh, base, ZWATCHTYPE_DATA, record, &events, 0), ZOK);
    EXPECT(zoo_set(zh, base, "y", 1, -1), ZOK);
    EXPECT(zoo_remove_watches(zh, base, ZWATCHTYPE_DATA, record, &events, 0), ZNOWATCHER);
    for (int n = 0; n < events.count; n++) EXPECT(events.type[n] == ZOO_CHANGED_EVENT, 0);
    zookeeper_close(zh);
    return 1;
}

/* ---- multi ----------------------------------------------------------------------------------------------------- */

static int multi_success(void) {
    zhandle_t *zh = client();
    char made[256], sequential[256];
    struct Stat stat;
    zoo_op_t ops[5];
    zoo_op_result_t results[5];
    EXPECT(make(zh, base, "0", 0), ZOK);
    const char *kid = below("kid");
    zoo_create_op_init(&ops[0], kid, "x", 1, &ZOO_OPEN_ACL_UNSAFE, 0, made, sizeof made);
    zoo_create_op_init(&ops[1], below("s-"), "x", 1, &ZOO_OPEN_ACL_UNSAFE, ZOO_SEQUENCE, sequential, sizeof sequential);
    zoo_set_op_init(&ops[2], base, "new", 3, 0, &stat);
    zoo_check_op_init(&ops[3], base, 1);
    zoo_delete_op_init(&ops[4], kid, 0);
    EXPECT(zoo_multi(zh, 5, ops, results), ZOK);
    for (int n = 0; n < 5; n++) EXPECT(results[n].err, ZOK);
    EXPECT_TEXT(made, kid);
    EXPECT_TEXT(sequential, below("s-0000000001"));
    EXPECT(stat.version, 1);
    EXPECT(stat.numChildren, 2);
    EXPECT(zoo_exists(zh, kid, 0, NULL), ZNONODE);
    zookeeper_close(zh);
    return 1;
}

static int multi_failure(void) {
    zhandle_t *zh = client();
    char made[256];
    zoo_op_t ops[3];
    zoo_op_result_t results[3];
    struct Stat stat;
    EXPECT(make(zh, base, "0", 0), ZOK);
    zoo_create_op_init(&ops[0], below("kid"), "x", 1, &ZOO_OPEN_ACL_UNSAFE, 0, made, sizeof made);
    zoo_check_op_init(&ops[1], base, 9);
    zoo_delete_op_init(&ops[2], base, -1);
    EXPECT(zoo_multi(zh, 3, ops, results), ZBADVERSION);
    EXPECT(results[0].err, ZOK);
    EXPECT(results[1].err, ZBADVERSION);
    EXPECT(results[2].err, ZRUNTIMEINCONSISTENCY);
    EXPECT(zoo_exists(zh, base, 0, &stat), ZOK);
    EXPECT(stat.numChildren, 0);
    zookeeper_close(zh);
    return 1;
}

/* ---- pipelining ------------------------------------------------------------------------------------------------ */

struct pipeline {
    pthread_mutex_t lock;
    pthread_cond_t done;
    int answered, wrong;
};

struct slot {
    struct pipeline *pipeline;
    int place;
};

static void answered(int rc, const struct Stat *stat, const void *context) {
    const struct slot *slot = context;
    struct pipeline *pipeline = slot->pipeline;
    pthread_mutex_lock(&pipeline->lock);
    if (rc != ZOK || slot->place != pipeline->answered || stat->version != slot->place + 1) pipeline->wrong++;
    if (++pipeline->answered == PIPELINED) pthread_cond_signal(&pipeline->done);
    pthread_mutex_unlock(&pipeline->lock);
}

static int pipelining(void) {
    zhandle_t *zh = client();
    static struct slot slots[PIPELINED];
    struct pipeline pipeline = {.answered = 0, .wrong = 0};
    pthread_mutex_init(&pipeline.lock, NULL);
    pthread_cond_init(&pipeline.done, NULL);
    EXPECT(make(zh, base, "0", 0), ZOK);
    for (int n = 0; n < PIPELINED; n++) {
        slots[n] = (struct slot){&pipeline, n};
        EXPECT(zoo_aset(zh, base, "x", 1, n, answered, &slots[n]), ZOK);
    }
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += WAIT_SECONDS;
    int late = 0;
    pthread_mutex_lock(&pipeline.lock);
    while (!late && pipeline.answered < PIPELINED) late = pthread_cond_timedwait(&pipeline.done, &pipeline.lock, &end);
    pthread_mutex_unlock(&pipeline.lock);
    EXPECT(pipeline.answered, PIPELINED);
    EXPECT(pipeline.wrong, 0);
    zookeeper_close(zh);
    return 1;
}

/* ---- sessions and ACLs ----------------------------------------------------------------------------------------- */

/* Breaks every TCP connection of this process to the server, as a network fault would. */
static void cut_connections(void) {
    int port = atoi(strrchr(address, ':') + 1);
    for (int fd = 3; fd < 1024; fd++) {
        struct sockaddr_in peer;
        socklen_t length = sizeof peer;
        if (getpeername(fd, (struct sockaddr *)&peer, &length) == 0 && peer.sin_family == AF_INET
            && ntohs(peer.sin_port) == port)
            shutdown(fd, SHUT_RDWR);
    }
}

static int reconnect_set_watches(void) {
    struct events session, events;
    struct Stat stat;
    events_init(&session);
    events_init(&events);
    zhandle_t *zh = client_with(&session, 10000, NULL);
    long long id = zoo_client_id(zh)->client_id;
    EXPECT(make(zh, base, "0", 0), ZOK);
    EXPECT(make(zh, below("e"), "0", ZOO_EPHEMERAL), ZOK);
    EXPECT(zoo_wexists(zh, base, record, &events, &stat), ZOK);
    EXPECT(zoo_wexists(zh, below("later"), record, &events, &stat), ZNONODE);
    pthread_mutex_lock(&session.lock);
    session.state = 0;
    pthread_mutex_unlock(&session.lock);
    cut_connections();
    EXPECT(events_wait(&session, -1, ZOO_CONNECTED_STATE), 1);
    EXPECT(zoo_client_id(zh)->client_id, id);
    EXPECT(zoo_exists(zh, below("e"), 0, &stat), ZOK);
    EXPECT(stat.ephemeralOwner, id);
    zhandle_t *other = client();
    EXPECT(zoo_set(other, base, "1", 1, -1), ZOK);
    EXPECT(events_wait(&events, 1, 0), 1);
    EXPECT(events.type[0], ZOO_CHANGED_EVENT);
    EXPECT(make(other, below("later"), "0", 0), ZOK);
    EXPECT(events_wait(&events, 2, 0), 1);
    EXPECT(events.type[1], ZOO_CREATED_EVENT);
    zookeeper_close(zh);
    zookeeper_close(other);
    return 1;
}

static int reattach(void) {
    struct events first, second;
    struct Stat stat;
    events_init(&first);
    events_init(&second);
    zhandle_t *zh = client_with(&first, 10000, NULL);
    EXPECT(make(zh, base, "0", ZOO_EPHEMERAL), ZOK);
    clientid_t id = *zoo_client_id(zh);
    zhandle_t *again = client_with(&second, 10000, &id);
    EXPECT(zoo_client_id(again)->client_id, id.client_id);
    EXPECT(memcmp(zoo_client_id(again)->passwd, id.passwd, sizeof id.passwd), 0);
    int rc;
    /* The first handle reconnects and takes the session back; so may this one: a lost connection is asked again. */
    for (int tries = 0; (rc = zoo_exists(again, base, 0, &stat)) == ZCONNECTIONLOSS && tries < 20; tries++)
        usleep(50000);
    EXPECT(rc, ZOK);
    EXPECT(stat.ephemeralOwner, id.client_id);
    zookeeper_close(again);
    zookeeper_close(zh);
    return 1;
}

static int wrong_password(void) {
    struct events events;
    zhandle_t *zh = client();
    clientid_t id = *zoo_client_id(zh);
    events_init(&events);
    id.passwd[3] ^= 1;
    zhandle_t *thief = zookeeper_init(address, record, 10000, &id, &events, 0);
    EXPECT(events_wait(&events, -1, ZOO_EXPIRED_SESSION_STATE), 1);
    zookeeper_close(thief);
    zookeeper_close(zh);
    return 1;
}

struct outcome {
    pthread_mutex_t lock;
    pthread_cond_t done;
    int rc;
};

static void auth_done(int rc, const void *context) {
    struct outcome *outcome = (struct outcome *)context;
    pthread_mutex_lock(&outcome->lock);
    outcome->rc = rc;
    pthread_cond_signal(&outcome->done);
    pthread_mutex_unlock(&outcome->lock);
}

static int add_auth(zhandle_t *zh, const char *credentials) {
    struct outcome outcome = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 1};
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += WAIT_SECONDS;
    int late = zoo_add_auth(zh, "digest", credentials, (int)strlen(credentials), auth_done, &outcome);
    pthread_mutex_lock(&outcome.lock);
    while (!late && outcome.rc == 1) late = pthread_cond_timedwait(&outcome.done, &outcome.lock, &end);
    pthread_mutex_unlock(&outcome.lock);
    return late ? late : outcome.rc;
}

static int acl_digest(void) {
    zhandle_t *zh = client(), *other = client();
    char data[8];
    int length = sizeof data;
    struct ACL_vector acl;
    struct Stat stat;
    EXPECT(zoo_create(zh, base, "x", 1, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0), ZINVALIDACL);
    EXPECT(add_auth(zh, "alice:secret"), ZOK);
    EXPECT(zoo_create(zh, base, "x", 1, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0), ZOK);
    EXPECT(zoo_get(other, base, 0, data, &length, NULL), ZNOAUTH);
    EXPECT(zoo_get_acl(zh, base, &acl, &stat), ZOK);
    EXPECT(acl.count, 1);
    EXPECT_TEXT(acl.data[0].id.scheme, "digest");
    EXPECT(strncmp(acl.data[0].id.id, "alice:", 6), 0);
    deallocate_ACL_vector(&acl);
    EXPECT(add_auth(other, "alice:wrong"), ZOK);
    EXPECT(zoo_get(other, base, 0, data, &length, NULL), ZNOAUTH);
    EXPECT(add_auth(other, "alice:secret"), ZOK);
    length = sizeof data;
    EXPECT(zoo_get(other, base, 0, data, &length, NULL), ZOK);
    EXPECT(zoo_set_acl(other, base, 7, &ZOO_OPEN_ACL_UNSAFE), ZBADVERSION);
    EXPECT(zoo_set_acl(other, base, 0, &ZOO_OPEN_ACL_UNSAFE), ZOK);
    zookeeper_close(zh);
    zookeeper_close(other);
    return 1;
}

static const struct {
    const char *name;
    int (*run)(void);
} CHECKS[] = {
    {"create, get, set, delete, exists with versions", create_get_set_delete},
    {"null and empty data", null_data},
    {"create2: path and Stat", create2_stat},
    {"children, with and without Stat", children_lists},
    {"ephemeral and sequential, gone with the session", ephemeral_sequential},
    {"watches: created, changed, children, deleted", watches},
    {"removed watch is not told", removed_watch},
    {"multi: success of every kind", multi_success},
    {"multi: failure, the error of each operation", multi_failure},
    {"asynchronous pipelining: 10000 answers in order", pipelining},
    {"cut connection: same session, ephemeral, watches set again", reconnect_set_watches},
    {"re-attach with id and password", reattach},
    {"re-attach with a wrong password expires the handle", wrong_password},
    {"ACL: digest", acl_digest},
};

int main(int count, char **arguments) {
    if (count < 2) {
        fprintf(stderr, "usage: c_suite HOST:PORT\n");
        return 2;
    }
    address = arguments[1];
    setvbuf(stdout, NULL, _IOLBF, 0);
    zoo_set_debug_level(0);
    alarm(TOTAL_SECONDS_MAX);
    for (size_t n = 0; n < sizeof CHECKS / sizeof CHECKS[0]; n++) {
        snprintf(base, sizeof base, "/c-%d-%zu", (int)getpid(), n);
        if (CHECKS[n].run()) {
            printf("ok   %s\n", CHECKS[n].name);
            passed++;
        } else {
            printf("FAIL %s: %s\n", CHECKS[n].name, failure);
            failed++;
        }
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed ? 1 : 0;
}
