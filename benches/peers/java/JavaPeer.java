import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;
import java.util.Arrays;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.producer.Callback;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * What producer_perf does, by Kafka's own client: the arguments are ADDRESS TOPIC RECORDS SIZE
 * WARM-UP bulk|sync KEY=VALUE..., and the last line is for the script.
 */
public class JavaPeer {
    private static final AtomicLong DELIVERED = new AtomicLong();
    private static final AtomicLong FAILED = new AtomicLong();
    private static final Callback COUNT =
            (metadata, error) -> (error == null ? DELIVERED : FAILED).incrementAndGet();

    private final KafkaProducer<byte[], byte[]> producer;
    private final String topic;
    private final byte[] value;
    private final boolean sync;

    private JavaPeer(Properties properties, String topic, int size, boolean sync) {
        this.producer = new KafkaProducer<>(properties);
        this.topic = topic;
        this.value = new byte[size];
        this.sync = sync;
        Arrays.fill(value, (byte) 'x');
    }

    /** The time that each record took, if each is waited for. */
    private long[] send(int records) throws Exception {
        long[] latencies = new long[sync ? records : 0];
        for (int i = 0; i < records; i++) {
            ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(topic, value);
            if (sync) {
                long begun = System.nanoTime();
                producer.send(record, COUNT).get();
                latencies[i] = System.nanoTime() - begun;
            } else {
                producer.send(record, COUNT);
            }
        }
        producer.flush();
        return latencies;
    }

    private static long cpuNanos() {
        var bean = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        return bean.getProcessCpuTime();
    }

    private static double at(long[] sorted, double share) {
        return sorted.length == 0 ? 0 : sorted[(int) (sorted.length * share)] / 1e3;
    }

    public static void main(String[] args) throws Exception {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", args[0]);
        properties.put("key.serializer", ByteArraySerializer.class.getName());
        properties.put("value.serializer", ByteArraySerializer.class.getName());
        for (String property : Arrays.asList(args).subList(6, args.length)) {
            String[] pair = property.split("=", 2);
            properties.put(pair[0], pair[1]);
        }
        int records = Integer.parseInt(args[2]);
        int warmUp = Integer.parseInt(args[4]);
        int size = Integer.parseInt(args[3]);
        JavaPeer peer = new JavaPeer(properties, args[1], size, args[5].equals("sync"));
        peer.send(warmUp);
        long before = DELIVERED.get();
        long start = System.nanoTime();
        long cpu = cpuNanos();
        long[] latencies = peer.send(records);
        double seconds = (System.nanoTime() - start) / 1e9;
        double cpuMicros = (cpuNanos() - cpu) / 1e3;
        Arrays.sort(latencies);
        System.out.printf(
                "sent=%d delivered=%d failed=%d rate=%.0f cpu_us_per_record=%.4f"
                        + " p50_us=%.1f p99_us=%.1f%n",
                records, DELIVERED.get() - before, FAILED.get(), records / seconds,
                cpuMicros / records, at(latencies, 0.5), at(latencies, 0.99));
        peer.producer.close();
    }
}
