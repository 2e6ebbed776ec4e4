import java.nio.charset.StandardCharsets;
import java.util.*;
import org.apache.kafka.common.serialization.*;

/**
 * Writes what the serializers of Kafka's Java client make of some values: type, value, bytes in
 * hex. With the jars of kafka-clients and slf4j-api:
 *
 *     java -cp ... tests/data/JavaSerializers.java > tests/data/kafka-4.3.1-serializers.tsv
 */
public class JavaSerializers {
    public static void main(String[] args) {
        for (String value : List.of("", "paid", "gr\u00fc\u00df", "\ud83d\ude80\u0000"))
            show("string", hex(value.getBytes(StandardCharsets.UTF_8)), new StringSerializer(),
                value);
        show("bytes", "00ff", new ByteArraySerializer(), new byte[] {0, -1});
        for (short value : new short[] {0, 1, -2, Short.MIN_VALUE, Short.MAX_VALUE})
            show("i16", value, new ShortSerializer(), value);
        for (int value : new int[] {0, 1, -2, Integer.MIN_VALUE, Integer.MAX_VALUE})
            show("i32", value, new IntegerSerializer(), value);
        for (long value : new long[] {0, 1, -2, Long.MIN_VALUE, Long.MAX_VALUE})
            show("i64", value, new LongSerializer(), value);
        // Given as bits: the sign of zero and the payload of NaN count.
        for (int bits : new int[] {0, 1 << 31, 0x3fc00000, 0x7f800000, 0x7fc00000, 0x7fc00001, 1})
            show("f32", String.format("%08x", bits), new FloatSerializer(),
                Float.intBitsToFloat(bits));
        for (long bits : new long[] {0, 1L << 63, 0x3ff8000000000000L, 0x7ff0000000000000L,
                0x7ff8000000000000L, 0x7ff8000000000001L, 0xfff8000000000000L, 1})
            show("f64", String.format("%016x", bits), new DoubleSerializer(),
                Double.longBitsToDouble(bits));
        for (String value : List.of("00000000-0000-0000-0000-000000000000",
                "0123ABCD-4567-89ab-cdef-fedcba987654"))
            show("uuid", value, new UUIDSerializer(), UUID.fromString(value));
        for (boolean value : new boolean[] {false, true})
            show("bool", value, new BooleanSerializer(), value);
        var ints = new ListSerializer<>(new IntegerSerializer());
        show("list", "i32:", ints, List.<Integer>of());
        show("list", "i32:7,null,-1,null", ints, Arrays.asList(7, null, -1, null));
        show("list", "i64:5", new ListSerializer<>(new LongSerializer()), List.of(5L));
        var strings = new ListSerializer<>(new StringSerializer());
        show("list", "string:", strings, List.<String>of());
        show("list", "string:a,null,,bc", strings, Arrays.asList("a", null, "", "bc"));
        var one = UUID.fromString("00000000-0000-0000-0000-000000000001");
        show("list", "uuid:null," + one, new ListSerializer<>(new UUIDSerializer()),
            Arrays.asList(null, one));
        show("list", "bool:true,null", new ListSerializer<>(new BooleanSerializer()),
            Arrays.asList(true, null));
    }

    private static <T> void show(String type, Object value, Serializer<T> serializer, T data) {
        System.out.println(type + "\t" + value + "\t" + hex(serializer.serialize("t", data)));
    }

    private static String hex(byte[] bytes) {
        return HexFormat.of().formatHex(bytes);
    }
}
