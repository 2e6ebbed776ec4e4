import java.io.BufferedOutputStream;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.DescribeProducersResult.PartitionProducerState;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AccessControlEntryFilter;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.quota.ClientQuotaAlteration;
import org.apache.kafka.common.quota.ClientQuotaEntity;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourcePatternFilter;
import org.apache.kafka.common.resource.ResourceType;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * The Rust test harness's hands inside a cluster: one JVM for many questions, since starting one
 * takes seconds.
 *
 * A request is a line of fields parted by tabs; the answer is any number of lines, closed by
 * "end" or "error TAB message". Bytes are written in hexadecimal, null as "-". Ends when its
 * input does.
 */
public final class KafkaTools {
    private static final int WAIT_MS = 60_000;

    private final String bootstrap;
    private final Admin admin;
    private final PrintStream out = new PrintStream(
        new BufferedOutputStream(System.out, 1 << 16), false, StandardCharsets.UTF_8);

    private KafkaTools(String bootstrap) {
        this.bootstrap = bootstrap;
        this.admin = Admin.create(config(Map.of(
            "request.timeout.ms", 5_000, "default.api.timeout.ms", WAIT_MS)));
    }

    public static void main(String[] args) throws Exception {
        KafkaTools tools = new KafkaTools(args[0]);
        BufferedReader in =
            new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        BlockingQueue<String> requests = new LinkedBlockingQueue<>();
        Thread worker = new Thread(() -> tools.answerAll(requests), "requests");
        worker.setDaemon(true);
        worker.start();
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            requests.add(line);
        }
        // The test is gone, and nobody waits for an answer any more.
        Runtime.getRuntime().halt(0);
    }

    private void answerAll(BlockingQueue<String> requests) {
        try {
            while (true) {
                answer(requests.take().split("\t", -1));
            }
        } catch (InterruptedException e) {
            throw new AssertionError(e); // nobody does
        }
    }

    private void answer(String[] request) {
        String last = "end";
        try {
            switch (request[0]) {
                case "create" -> create(request);
                case "grow" -> grow(request[1], Integer.parseInt(request[2]));
                case "delete" -> admin.deleteTopics(Set.of(request[1])).all().get();
                case "acls" -> acls(request);
                case "quota" -> quota(request[1], Double.parseDouble(request[2]));
                case "producers" -> producers(request[1]).forEach(p -> out.println(p.producerId()));
                case "partitions" -> partitions(request[1]).forEach(this::print);
                case "consume" -> consume(request[1], Long.parseLong(request[2]), request[3]);
                default -> throw new IllegalArgumentException("no such request: " + request[0]);
            }
        } catch (Exception e) {
            Throwable cause = e instanceof ExecutionException ? e.getCause() : e;
            last = "error\t" + cause.toString().replaceAll("\\s+", " ");
        }
        out.println(last);
        out.flush();
    }

    /** topic, partitions, replication, key=value...; returns once each partition has a leader. */
    private void create(String[] request) throws Exception {
        Map<String, String> configs = new HashMap<>();
        for (int i = 4; i < request.length; i++) {
            String[] pair = request[i].split("=", 2);
            configs.put(pair[0], pair[1]);
        }
        int count = Integer.parseInt(request[2]);
        NewTopic topic = new NewTopic(request[1], count, Short.parseShort(request[3]));
        admin.createTopics(List.of(topic.configs(configs))).all().get();
        awaitLeaders(request[1], count);
    }

    private void grow(String topic, int count) throws Exception {
        admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(count))).all().get();
        awaitLeaders(topic, count);
    }

    /** "PERMISSION RESOURCE NAME OPERATION" each, for everybody; without any, takes denials away. */
    private void acls(String[] request) throws Exception {
        if (request.length == 1) {
            admin.deleteAcls(List.of(new AclBindingFilter(
                ResourcePatternFilter.ANY,
                new AccessControlEntryFilter(
                    null, null, AclOperation.ANY, AclPermissionType.DENY)))).all().get();
            return;
        }
        List<AclBinding> acls = new ArrayList<>();
        for (int i = 1; i < request.length; i++) {
            String[] words = request[i].split(" ");
            acls.add(new AclBinding(
                new ResourcePattern(
                    ResourceType.fromString(words[1]), words[2], PatternType.LITERAL),
                new AccessControlEntry(
                    "User:*", "*", AclOperation.fromString(words[3]),
                    AclPermissionType.fromString(words[0]))));
        }
        admin.createAcls(acls).all().get();
    }

    /** What clients of this id may produce, in bytes per second. */
    private void quota(String clientId, double rate) throws Exception {
        admin.alterClientQuotas(List.of(new ClientQuotaAlteration(
            new ClientQuotaEntity(Map.of(ClientQuotaEntity.CLIENT_ID, clientId)),
            List.of(new ClientQuotaAlteration.Op("producer_byte_rate", rate))))).all().get();
    }

    /** The producers that the leader of partition 0 remembers. */
    private List<org.apache.kafka.clients.admin.ProducerState> producers(String topic)
            throws Exception {
        TopicPartition partition = new TopicPartition(topic, 0);
        PartitionProducerState state =
            admin.describeProducers(Set.of(partition)).partitionResult(partition).get();
        return state.activeProducers();
    }

    private void awaitLeaders(String topic, int count) throws Exception {
        long deadline = System.nanoTime() + WAIT_MS * 1_000_000L;
        while (!hasLeaders(topic, count)) {
            if (System.nanoTime() > deadline) {
                throw new IllegalStateException("no leader for each partition of " + topic);
            }
            Thread.sleep(20);
        }
    }

    private boolean hasLeaders(String topic, int count) throws Exception {
        try {
            List<TopicPartitionInfo> partitions = partitions(topic);
            return partitions.size() == count
                && partitions.stream().allMatch(p -> p.leader() != null && !p.leader().isEmpty());
        } catch (ExecutionException e) {
            return false; // a broker that has not heard of the topic yet
        }
    }

    private List<TopicPartitionInfo> partitions(String topic) throws Exception {
        return admin.describeTopics(Set.of(topic)).allTopicNames().get().get(topic).partitions();
    }

    /** partition TAB leader or -1 TAB number of in-sync replicas TAB replicas, with commas */
    private void print(TopicPartitionInfo p) {
        int leader = p.leader() == null || p.leader().isEmpty() ? -1 : p.leader().id();
        String replicas = p.replicas().stream().map(r -> String.valueOf(r.id()))
            .collect(java.util.stream.Collectors.joining(","));
        out.println(p.partition() + "\t" + leader + "\t" + p.isr().size() + "\t" + replicas);
    }

    /** Each record up to the end that the log had at the request, or the first max of them. */
    private void consume(String topic, long max, String isolation) {
        Map<String, Object> config = config(Map.of(
            "isolation.level", isolation, "enable.auto.commit", false,
            "auto.offset.reset", "none", "default.api.timeout.ms", WAIT_MS));
        var bytes = new ByteArrayDeserializer();
        try (var consumer = new KafkaConsumer<>(config, bytes, bytes)) {
            List<TopicPartition> all = new ArrayList<>();
            for (PartitionInfo info : consumer.partitionsFor(topic)) {
                all.add(new TopicPartition(topic, info.partition()));
            }
            consumer.assign(all);
            consumer.seekToBeginning(all);
            Map<TopicPartition, Long> ends = consumer.endOffsets(all);
            long seen = 0;
            long deadline = System.nanoTime() + WAIT_MS * 1_000_000L;
            while (seen < max && all.stream().anyMatch(p -> consumer.position(p) < ends.get(p))) {
                if (System.nanoTime() > deadline) {
                    throw new IllegalStateException("the end of " + topic + " was not reached");
                }
                for (var record : consumer.poll(Duration.ofMillis(200))) {
                    TopicPartition partition = new TopicPartition(topic, record.partition());
                    if (seen < max && record.offset() < ends.get(partition)) {
                        seen++;
                        print(record);
                    }
                }
            }
        }
    }

    /** partition, offset, timestamp, its type, key, value; a name and a value for each header */
    private void print(ConsumerRecord<byte[], byte[]> record) {
        StringBuilder line = new StringBuilder();
        line.append(record.partition()).append('\t').append(record.offset()).append('\t');
        line.append(record.timestamp()).append('\t').append(record.timestampType()).append('\t');
        line.append(hex(record.key())).append('\t').append(hex(record.value()));
        for (Header header : record.headers()) {
            line.append('\t').append(hex(header.key().getBytes(StandardCharsets.UTF_8)));
            line.append('\t').append(hex(header.value()));
        }
        out.println(line);
    }

    private static String hex(byte[] bytes) {
        return bytes == null ? "-" : HexFormat.of().formatHex(bytes);
    }

    private Map<String, Object> config(Map<String, Object> more) {
        Map<String, Object> config = new HashMap<>(more);
        config.put("bootstrap.servers", bootstrap);
        config.put("reconnect.backoff.max.ms", 500);
        config.put("metadata.max.age.ms", 2_000);
        return config;
    }
}
